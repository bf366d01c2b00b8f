"""What lft benchmark makes of a folder, of options and of mistakes, before anything starts."""

import json
from pathlib import Path

import pytest

from lft.cli.finished import finished_plan
from lft.cli.main import run
from lft.cli.to_benchmark import benchmark_elsewhere, benchmark_of_run
from lft.core.errors import SettingsError
from lft.core.order import WorkerReport
from lft.launch.restart import benchmark_again
from tests.runs import new_attempt

Captured = pytest.CaptureFixture[str]
DATASET = {"data.source": ("--dataset", "rows.jsonl")}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    kinds: dict[str, dict[str, str]] = {
        "adapter": {"peft_type": "LORA", "base_model_name_or_path": "a/b"},
        "prompts": {"peft_type": "PROMPT_TUNING", "base_model_name_or_path": "a/b"},
        "unnamed": {"peft_type": "LORA"},
        "pinned": {"peft_type": "LORA", "base_model_name_or_path": "a/b", "revision": "v2"},
    }
    for name, config in kinds.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["adapter"], 2, "lft benchmark adapter --dataset ROWS.jsonl"),
        (["nothing", "--dataset", "rows.jsonl"], 2, "nothing does not exist"),
        ([".", "--dataset", "rows.jsonl"], 3, "holds neither an adapter (adapter_config.json) nor"),
        (["adapter", "--dataset", "rws.jsonl"], 2, "rws.jsonl does not exist; in that folder: rows.jsonl"),
        (["adapter", "--dataset", "rows.jsonl", "--num-prompts", "0"], 2, "benchmark.num_prompts is not"),
        (["prompts", "--dataset", "rows.jsonl"], 3, "is of kind PROMPT_TUNING, whose prompts hold tokens"),
        (["unnamed", "--dataset", "rows.jsonl"], 3, "names no base model\n  next   name it: --model NAME"),
        (["whole", "--dataset", "rows.jsonl"], 3, "whole is a whole model; the folder of an adapter is expected"),
        (["adapter", "--dataset", "rows.jsonl", "--set", "benchmark.metrics=[bleu]"], 2, "bleu is on the Hub"),
    ],
    ids=str,
)
def test_what_cannot_be_benchmarked_is_said_before_anything_starts(
    words: list[str], code: int, expected: str, tmp_path: Path, capsys: Captured
) -> None:
    assert run(["benchmark", *words]) == code
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "adapter-benchmark").exists()


def test_an_adapter_from_elsewhere_is_asked_all_rows_with_the_template_it_brings(tmp_path: Path) -> None:
    template = tmp_path / "adapter" / "chat_template.jinja"
    template.write_text("{{ messages }}")
    plan = benchmark_elsewhere(Path("adapter"), dict(DATASET), ("benchmark.batch_size=8",))
    settings = plan.settings
    assert settings.output_dir == tmp_path / "adapter-benchmark"
    assert (settings.model.name, settings.data.held_out, settings.benchmark.batch_size) == ("a/b", 0, 8)
    assert settings.data.chat_template == str(template)
    assert plan.precision == "fp32"
    order = plan.order("benchmark")
    assert (order.adapter, order.strategy) == (tmp_path / "adapter", "single")
    assert benchmark_elsewhere(Path("pinned"), dict(DATASET), ()).settings.model.revision == "v2"
    own = DATASET | {"model.name": ("--model", "c/d"), "output_dir": ("--output-dir", "there")}
    plan = benchmark_elsewhere(Path("unnamed"), dict(own), ())
    assert (plan.settings.model.name, plan.settings.output_dir) == ("c/d", tmp_path / "there")
    assert benchmark_again(plan).startswith(f"lft benchmark {tmp_path / 'unnamed'} --dataset {tmp_path / 'rows.jsonl'}")


def test_what_finishes_a_benchmark_asks_the_same_again(tmp_path: Path) -> None:
    own = DATASET | {"benchmark.num_prompts": ("--num-prompts", 7), "model.name": ("--model", "c/d")}
    plan = benchmark_elsewhere(Path("adapter"), dict(own), ("data.max_length=64",))
    again = benchmark_again(plan)
    assert "--model c/d" in again
    assert again.endswith("--set data.max_length=64 --set benchmark.num_prompts=7")
    plan = benchmark_of_run(out := finished(tmp_path), {"benchmark.num_prompts": ("--num-prompts", 9)}, ())
    ran_out = WorkerReport(ok=False, rank=0, stage="answering", exit_code=67)
    trained = finished_plan(out).settings
    assert benchmark_again(plan, run=trained) == f"lft benchmark {out} --set benchmark.num_prompts=9"
    assert benchmark_again(plan, ran_out, trained).endswith("num_prompts=9 --set benchmark.batch_size=16")


@pytest.mark.parametrize("folder", ["out", "adapter"])
def test_a_run_s_report_is_not_overwritten_by_that_of_other_rows(folder: str, tmp_path: Path) -> None:
    finished(tmp_path)
    there: dict[str, tuple[str, object]] = {**DATASET, "output_dir": ("--output-dir", folder)}
    with pytest.raises(SettingsError, match="whose own report this one would overwrite"):
        benchmark_elsewhere(Path("adapter"), there, ())


def finished(tmp_path: Path) -> Path:
    """A run of two ranks, as it is once it has trained."""
    plan = new_attempt(tmp_path / "out")
    WorkerReport(ok=True, rank=0, stage="training").save(plan.attempt_dir.report("train", 0))
    (tmp_path / "out" / "adapter_config.json").write_text("{}")
    return tmp_path / "out"


def test_a_run_s_own_rows_are_benchmarked_as_asked_and_how_it_was_launched_stays(tmp_path: Path) -> None:
    out = finished(tmp_path)
    given: dict[str, tuple[str, object]] = {"benchmark.num_prompts": ("--num-prompts", "9")}
    given["launch.cpu_procs"] = ("--cpu-procs", "1")
    plan = benchmark_of_run(out, given, ())
    assert (plan.attempt, plan.settings.benchmark.num_prompts) == (1, 9)
    assert plan.world_size("benchmark") == 1
    assert plan.settings.launch.cpu_procs == 2
    assert plan.adapter is None


def test_what_would_not_be_the_run_s_own_rows_any_more_is_refused(tmp_path: Path) -> None:
    out = finished(tmp_path)
    given: dict[str, tuple[str, object]] = {"model.name": ("--model", "e/f")}
    with pytest.raises(SettingsError) as caught:
        benchmark_of_run(out, given, ("training.seed=7",))
    assert "model.name, training.seed  cannot be changed" in str(caught.value)
    with pytest.raises(SettingsError, match="holds out no row"):
        benchmark_of_run(out, {"benchmark.num_prompts": ("--num-prompts", 0)}, ())
