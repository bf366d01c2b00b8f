"""What lft benchmark is to do: the plan for a finished run's own rows, or for an adapter and rows from anywhere."""

import shlex
from pathlib import Path

from lft.cli.finished import finished_plan
from lft.core.adapter_folder import find_tuned
from lft.core.errors import PreflightError, SettingsError
from lft.core.hardware import look_at_machine
from lft.core.model_facts import read_model_facts
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings
from lft.launch.follow import training_attempts
from lft.plan.answering import plan_benchmark
from lft.plan.batch import Batch
from lft.plan.launch_plan import LaunchPlan, plan_precision

Given = dict[str, tuple[str, object]]
"""Setting -> flag and value."""


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
    _flag, elsewhere = given.get("model.name", ("", None))
    tuned = find_tuned(adapter, None if elsewhere is None else str(elsewhere))
    if not tuned.has_adapter:
        raise PreflightError(f"{adapter} is a whole model; the folder of an adapter is expected")
    adapter, named = tuned.folder, f"{tuned.config_file}:"
    values: Given = {"data.held_out": ("lft benchmark", 0), "output_dir": ("lft benchmark", _beside(adapter))}
    values |= {"model.name": (named, tuned.base), "model.revision": (named, tuned.revision)}
    values["model.quantization"] = (named, tuned.notes.get("quantization", "none"))
    if (adapter / "chat_template.jinja").is_file():
        values["data.chat_template"] = ("lft benchmark", str(adapter / "chat_template.jinja"))
    settings = read_settings(None, values | given, sets)
    if settings.data.held_out or not settings.benchmark.num_prompts:
        mistake = (
            "all rows of --dataset may be asked, and at least one: data.held_out is 0, benchmark.num_prompts is not"
        )
        raise SettingsError([mistake])
    _need_folder_of_its_own(settings.output_dir)
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


def _need_folder_of_its_own(output_dir: Path) -> None:
    """A run's report, page and card would show scores of other rows as its own."""
    folder = RunDir(output_dir)
    if folder.adapter_config.exists() or training_attempts(folder):
        raise SettingsError(
            [f"{output_dir} is a run or an adapter, whose own report this one would overwrite"],
            next_step="--output-dir names another folder; without it, it is that of the adapter with -benchmark behind",
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


def _beside(adapter: Path) -> str:
    return str(adapter.with_name(f"{adapter.name}-benchmark"))
