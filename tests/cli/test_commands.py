"""The verbs: what they show, what they write, and what the last lines of a run say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lft.cli.finished import finished_plan
from lft.cli.main import run
from lft.cli.present import RunDisplay, show_outcome
from lft.core.events import Event
from lft.core.hardware import Machine
from lft.core.order import WorkerReport
from lft.core.settings import RunSettings
from lft.launch.outcome import Failure, Outcome
from lft.plan.launch_plan import LaunchPlan, make_plan

RUN_FILE = "model: {name: a/b}\ndata: {source: c/d}\nlaunch: {cpu_procs: 2}\n"
MACHINE = Machine(gpus=(), cpu_cores=2, memory_bytes=2**33, cpu_computes_bf16=False)


def plan_in(folder: Path) -> LaunchPlan:
    """A plan for `folder`/out."""
    values = {"model": {"name": "a/b"}, "data": {"source": "c/d"}, "output_dir": folder / "out"}
    return make_plan(RunSettings.model_validate(values), MACHINE)


def finished_run(folder: Path) -> LaunchPlan:
    """The files of a finished run that its verbs look for."""
    plan = plan_in(folder)
    plan.attempt_dir.folder.mkdir(parents=True)
    plan.attempt_dir.plan.write_text(plan.model_dump_json())
    WorkerReport(ok=True, rank=0, stage="training").save(plan.attempt_dir.report("train", 0))
    plan.run_dir.adapter_config.write_text('{"r": 8}')
    return plan


def test_lft_yaml_is_the_run_file_when_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "lft.yaml").write_text(RUN_FILE)
    assert run(["launch", "--gpus", "4", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert f"Plan for {tmp_path / 'finetuned_model'}, attempt 0: a/b" in text
    assert (
        "running 2 ranks on the CPU instead of the 4 GPUs asked for; the global batch stays 64 (accumulation 8)" in text
    )
    assert [path.name for path in tmp_path.iterdir()] == ["lft.yaml"]


def test_a_model_and_a_data_set_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["launch", "--model", "a/b", "--dataset", "c/d", "--dry-run"]) == 0
    assert "a/b" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_demo_does_not_silently_change_a_run_file_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    assert run(["launch", "run.yaml", "--demo", "--dry-run"]) == 2
    assert "--demo  brings its own settings, and run.yaml is named too; leave out one" in capsys.readouterr().err


def test_the_plan_as_json_is_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    assert run(["plan", "run.yaml", "--json"]) == 0
    plan = LaunchPlan.model_validate_json(capsys.readouterr().out)
    assert (plan.settings.data.source, plan.batch.world_size) == ("c/d", 2)


def test_the_options_of_a_launch_reach_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    options = "--nodes 2 --restarts 3 --hang-timeout 90 --grace 5 --strategy fsdp --no-strict"
    assert run(["plan", "run.yaml", "--json", *options.split()]) == 0
    launch = LaunchPlan.model_validate_json(capsys.readouterr().out).settings.launch
    assert (launch.nodes, launch.restarts, launch.hang_timeout_seconds, launch.grace_seconds) == (2, 3, 90, 5)
    assert (launch.strategy, launch.strict) == ("fsdp", False)
    assert run(["plan", "run.yaml", "--json", "--strict"]) == 0
    assert LaunchPlan.model_validate_json(capsys.readouterr().out).settings.launch.strict is True


def test_the_plan_shows_each_command_that_starts_its_ranks_whole_and_on_its_own_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    assert run(["plan", "run.yaml", "--strategy", "zero2", "--cpu-procs", "2"]) == 0
    lines = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines() if line.startswith("  or all")]
    assert [words[2].split()[0] for words in lines] == ["accelerate", "torchrun", "deepspeed"]
    assert all(words[2].endswith("run/attempt-0/order.json") for words in lines)


def test_the_files_of_a_plan_are_written_only_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    assert run(["plan", "run.yaml", "--write", "there"]) == 0
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    names = {"settings.yaml", "plan.json", "launch_configs/accelerate.yaml"}
    names |= {"attempt-0/plan.json", "attempt-0/order.json"}
    assert found == {"run.yaml"} | {f"there/run/{name}" for name in names}
    assert "python -m lft.train.worker" in capsys.readouterr().out
    assert run(["plan", "there/run/settings.yaml"]) == 0, "what was written is a run file"


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == RunSettings.model_json_schema()


@pytest.mark.parametrize("arguments", [["plan", "run.yaml"], ["plan", "run.yaml", "--json"], ["--help"]], ids=str)
def test_a_reader_that_goes_away_is_no_bug(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "lft.cli.main", *arguments]
    done = subprocess.run(command, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("verb", [["benchmark"], ["upload", "--repo-name", "me/x"]], ids=lambda verb: verb[0])
@pytest.mark.parametrize(
    ("there", "code", "expected"),
    [
        ("nothing", 2, "nowhere is not a folder; the output_dir of a finished run is expected"),
        ("a folder", 3, "nowhere holds no run\n  next   name the output_dir of a run"),
        ("a damaged plan", 3, "plan.json cannot be read"),
        ("no adapter", 3, "the run in nowhere has no adapter yet\n  next   lft resume"),
    ],
)
def test_a_verb_for_finished_runs_says_what_is_missing(
    verb: list[str],
    there: str,
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if there != "nothing":
        (tmp_path / "nowhere").mkdir()
    if there in ("a damaged plan", "no adapter"):
        finished_run(tmp_path).run_dir.output_dir.rename(tmp_path / "nowhere")
    if there == "a damaged plan":
        (tmp_path / "nowhere" / "run" / "attempt-0" / "plan.json").write_text('{"settings"')
    if there == "no adapter":
        (tmp_path / "nowhere" / "adapter_config.json").unlink()
    assert run([verb[0], "nowhere", *verb[1:]]) == code
    assert expected in capsys.readouterr().err


def test_a_finished_run_s_plan_is_that_of_the_attempt_that_made_the_adapter(tmp_path: Path) -> None:
    made = finished_run(tmp_path)
    stopped = plan_in(tmp_path).model_copy(update={"attempt": 1, "strategy": "ddp"})
    stopped.attempt_dir.folder.mkdir()
    for path in (stopped.attempt_dir.plan, stopped.run_dir.plan):
        path.write_text(stopped.model_dump_json())
    assert finished_plan(tmp_path / "out") == made.model_copy(update={"attempt": 2})


def test_an_upload_without_a_repository_says_how_to_name_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run(tmp_path)
    assert run(["upload", str(tmp_path / "out")]) == 2
    assert f"lft upload {tmp_path / 'out'} --repo-name USER/NAME" in capsys.readouterr().err


def test_a_bug_of_lft_is_told_from_a_mistake_of_its_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lft.cli.schema.RunSettings", None)
    assert run(["schema"]) == 70
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "this is a bug in lft" in text


def report(**changes: Any) -> WorkerReport:
    """A rank's report of a failure."""
    values = {"ok": False, "rank": 1, "stage": "training", "exit_code": 64, "message": "no such [layer]"}
    return WorkerReport.model_validate(values | changes)


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (
            Outcome(
                exit_code=64,
                failure=Failure(
                    report=report(error_class="KeyError", traceback="Traceback\nhere"), ranks=(1,), stopped=1
                ),
            ),
            [
                "rank 1 failed, while training; the other rank was stopped because of it",
                "Traceback\n    here",
                "attempt-0/rank-1.log",
                "exit 64",
            ],
        ),
        (
            Outcome(
                exit_code=3,
                failure=Failure(
                    report=report(exit_code=3, error_class="DataError", traceback="Traceback"), ranks=(0, 1), stopped=0
                ),
            ),
            ["ranks 0-1 failed, while training", "    no such [layer]", "exit 3"],
        ),
        (
            Outcome(
                exit_code=137,
                failure=Failure(
                    report=report(stage="", message="was killed by SIGKILL"), ranks=(1,), stopped=7, log_tail="a\nb"
                ),
            ),
            ["rank 1 was killed by SIGKILL; the 7 other ranks were stopped", "    a\n    b\n", "exit 137"],
        ),
        (
            Outcome(
                exit_code=67,
                failure=Failure(
                    report=report(exit_code=67, error_class="OutOfMemoryError", traceback="T"), ranks=(1,), stopped=1
                ),
                next_step="lft resume o --set training.batch_size=2",
            ),
            ["next       lft resume o --set training.batch_size=2", "exit 67"],
        ),
        (
            Outcome(exit_code=75, stopped="after step 3, saved"),
            ["stopped    after step 3, saved; in {out}", "next       lft resume {out}", "exit 75"],
        ),
    ],
)
def test_the_last_lines_say_what_happened_where_and_what_to_do(
    outcome: Outcome, expected: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_outcome(outcome, plan_in(tmp_path))
    text = capsys.readouterr().out
    for words in expected:
        assert words.replace("{out}", str(tmp_path / "out")) in text


@pytest.mark.parametrize(
    ("better", "worse"), [("rougeL", "loss"), ("loss", "rouge1")], ids=["higher is better", "lower is better"]
)
def test_the_end_of_a_run_shows_its_scores_and_says_which_changes_are_real(
    better: str, worse: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["loss", "rouge1", "rouge2", "rougeL"]
    sign = {name: (-1 if name == "loss" else 1) for name in names}
    mean = dict.fromkeys(names, 0.0) | {better: 0.1 * sign[better], worse: -0.1 * sign[worse]}
    benchmark = {
        "prompts": 50,
        "base": dict.fromkeys(names, 0.5),
        "tuned": {name: 0.5 + mean[name] for name in names},
        "difference": {
            name: {
                "mean": mean[name],
                "low": mean[name] - 0.02,
                "high": mean[name] + 0.02,
                "significant": mean[name] != 0,
            }
            for name in names
        },
        "samples": [{"prompt": "[b]say", "reference": "hi", "base": "?", "tuned": "hi"}],
    }
    outcome = Outcome(exit_code=0, report={"training": None, "benchmark": benchmark}, problems=("the Hub is away",))
    show_outcome(outcome, plan_in(tmp_path))
    text = capsys.readouterr().out
    titles = {"loss": "held-out loss", "rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"}
    verdict = {name: next(line for line in text.splitlines() if titles[name] in line) for name in names}
    assert "better" in verdict[better]
    assert "worse" in verdict[worse]
    assert sum("no significant" in line for line in verdict.values()) == 2
    assert "[b]say" in text
    assert "problem    the Hub is away" in text
    assert f"adapter    {tmp_path / 'out'}" in text


def test_progress_without_a_terminal_is_plain_lines_of_rank_0(capsys: pytest.CaptureFixture[str]) -> None:
    with RunDisplay() as display:
        for event in (
            Event("rank-0", "stage", {"name": "training"}),
            Event("rank-1", "stage", {"name": "unseen"}),
            Event("rank-0", "log", {"loss": 1.2345}),
            Event("rank-0", "step", {"step": 1, "total": 9}),
            Event("rank-0", "step", {"step": 9, "total": 9}),
            Event("rank-0", "saved", {"step": 9}),
            Event("rank-0", "notice", {"line": "split      [9] rows"}),
        ):
            display.observe(event)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "stage      training"
    assert lines[1].startswith("training step 9/9  loss 1.234")
    assert lines[2:] == ["saved      checkpoint-9", "split      [9] rows"]


@pytest.mark.parametrize(
    ("typed", "call", "expected"),
    [
        (" Ada \n", "'Name'", "Name: Ada"),
        ("\n", "'Name', 'Bob'", "Name [Bob]: Bob"),
        ("  \n", "'Name'", "Name: "),
        ("\n", "'Name', ''", "Name []: "),
    ],
)
def test_a_question_is_answered_or_its_default_taken(typed: str, call: str, expected: str) -> None:
    script = f"from lft.cli.prompt import get_user_input; print(get_user_input({call}), end='')"
    done = subprocess.run([sys.executable, "-c", script], input=typed, capture_output=True, text=True, check=True)
    assert done.stdout == expected
