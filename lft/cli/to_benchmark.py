"""What lft benchmark is to do: the plan for a finished run's own rows, or for an adapter and rows from anywhere."""

import json
import shlex
from pathlib import Path
from typing import Any

from lft.cli.finished import finished_plan
from lft.core.errors import PreflightError, SettingsError
from lft.core.hardware import look_at_machine
from lft.core.model_facts import read_model_facts
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings
from lft.plan.answering import plan_benchmark
from lft.plan.batch import Batch
from lft.plan.launch_plan import LaunchPlan, plan_precision

Given = dict[str, tuple[str, object]]
"""Setting -> flag and value."""
WITH_VIRTUAL_TOKENS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT")
"""Kinds of peft that put tokens of their own before the prompt."""


def benchmark_of_run(output_dir: Path, given: Given, sets: tuple[str, ...]) -> LaunchPlan:
    """The plan that made the adapter, with its benchmark on this machine; what is given changes how it is benchmarked.

    Raises SettingsError where it would change anything else, PreflightError where there is no finished run.
    """
    folder = RunDir(output_dir.expanduser().absolute())
    if folder.adapter_config.exists() and not folder.attempts():
        raise SettingsError(
            [f"{output_dir} is an adapter that no run of lft has left: it holds out no rows"],
            next_step=shlex.join(["lft", "benchmark", str(output_dir), "--dataset", "ROWS.jsonl"]),
        )
    plan = finished_plan(output_dir)
    settings = _changed(plan.settings, given, sets)
    if not settings.has_benchmark:
        raise SettingsError(
            ["the run holds out no row, or asks for no prompt (data.held_out, benchmark.num_prompts)"],
            next_step=shlex.join(["lft", "benchmark", str(output_dir), "--dataset", "ROWS.jsonl"]),
        )
    facts = read_model_facts(settings.model)
    topology, answering = plan_benchmark(settings, look_at_machine(), plan.strategy, plan.precision, facts)
    # how it was launched stays in the report: so it can be repeated
    settings = settings.model_copy(update={"launch": plan.settings.launch})
    changes = {"settings": settings, "topology": topology, "answering": answering}
    return plan.model_copy(update=changes | {"node": 0, "meeting_point": None, "shares_folder": False})


def benchmark_elsewhere(adapter: Path, given: Given, sets: tuple[str, ...]) -> LaunchPlan:
    """The plan for an adapter that need not come from lft, and rows of which none is held out: all may be asked.

    Raises SettingsError or PreflightError, before anything is started or written.
    """
    adapter = adapter.expanduser().absolute()
    config = _adapter_config(adapter)
    base = _json(adapter / "lft.json").get("base_model") or config.get("base_model_name_or_path")
    values: Given = {"data.held_out": ("lft benchmark", 0), "output_dir": ("lft benchmark", _beside(adapter))}
    if base:
        values["model.name"] = (f"{adapter / 'adapter_config.json'}:", base)
    elif "model.name" not in given:
        raise SettingsError([f"{adapter} names no base model"], next_step="--model NAME")
    if (adapter / "chat_template.jinja").is_file():
        values["data.chat_template"] = ("lft benchmark", str(adapter / "chat_template.jinja"))
    settings = read_settings(None, values | given, sets)
    if settings.data.held_out or not settings.benchmark.num_prompts:
        mistake = (
            "all rows of --dataset may be asked, and at least one: data.held_out is 0, benchmark.num_prompts is not"
        )
        raise SettingsError([mistake])
    machine, facts = look_at_machine(), read_model_facts(settings.model)
    topology, answering = plan_benchmark(settings, machine, None, None, facts)
    precision = plan_precision(settings, machine, topology)[0]
    return LaunchPlan(
        settings=settings,
        attempt=RunDir(settings.output_dir).next_attempt().number,
        strategy=answering.strategy,
        topology=topology,
        answering=answering,
        adapter=adapter,
        batch=Batch(micro_batch=1, accumulation=1, world_size=topology.ranks),
        # on a CPU the ranks could measure what is faster, but answers should not depend on how busy it is
        precision=precision or ("fp32" if topology.device == "cpu" else None),
        choices=(),
        notices=(),
    )


def _changed(settings: RunSettings, given: Given, sets: tuple[str, ...]) -> RunSettings:
    """The run's settings with those of the benchmark, and of where it happens, changed."""
    values = {key: ("the run", value) for key, value in settings.by_name().items() if value is not None}
    values["output_dir"] = ("OUTPUT_DIR", str(settings.output_dir))
    changed = read_settings(None, values | given, sets)
    here = ("benchmark.", "launch.gpus", "launch.cpu_procs")
    before = settings.by_name()
    wrong = [key for key, value in changed.by_name().items() if value != before[key] and not key.startswith(here)]
    if wrong or changed.output_dir != settings.output_dir:
        names = ", ".join(wrong) or "output_dir"
        raise SettingsError(
            [f"{names}  cannot be changed for the rows the run held out: only benchmark.*, --gpus and --cpu-procs can"],
            next_step="--dataset SOURCE benchmarks the adapter on any rows, as asked",
        )
    return changed


def _adapter_config(adapter: Path) -> dict[str, Any]:
    if not adapter.is_dir():
        raise SettingsError([f"{adapter} is not a folder; one that holds adapter_config.json is expected"])
    config = _json(adapter / "adapter_config.json")
    if not config:
        raise PreflightError(f"{adapter} holds no adapter: adapter_config.json is missing, or cannot be read")
    kind = str(config.get("peft_type"))
    if kind in WITH_VIRTUAL_TOKENS:
        raise PreflightError(f"the adapter in {adapter} is of kind {kind}, whose prompts hold tokens that are no words")
    return config


def _beside(adapter: Path) -> str:
    return str(adapter.with_name(f"{adapter.name}-benchmark"))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
