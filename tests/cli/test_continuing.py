"""The same command typed again: it goes on, or says why not before it touches anything; a run that is done is left alone."""

from pathlib import Path

import pytest

from lft.cli.main import run
from lft.core.files import write_text
from lft.core.order import WorkerReport
from lft.core.run_dir import RunDir
from lft.plan.changes import arithmetic, changes
from lft.plan.launch_plan import LaunchPlan
from tests.runs import checkpoint, end, launcher_at, new_attempt

Captured = pytest.CaptureFixture[str]
COMMAND = ["--model", "a/b", "--dataset", "c/d", "--output-dir", "out", "--cpu-procs", "2"]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two CPU ranks under ddp, named as a user would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    new_attempt(tmp_path / "out")
    return Path("out")


def asked(*settings: str) -> list[str]:
    """`--set` before each."""
    return [word for setting in settings for word in ("--set", setting)]


def launch(*words: str) -> int:
    """`lft launch`, up to the plan."""
    return run(["launch", *COMMAND, "--dry-run", *words])


def finish_training(out: Path, **outcome: object) -> LaunchPlan:
    """One more attempt, which has trained to its end; without `outcome` its launcher was killed then."""
    plan = new_attempt(out.absolute())
    WorkerReport(ok=True, rank=0, stage="training").save(plan.attempt_dir.report("train", 0))
    write_text(plan.run_dir.adapter_config, "{}")
    if outcome:
        end(plan.attempt_dir, **outcome)  # type: ignore[arg-type]
    return plan


def test_the_same_command_goes_on_from_the_newest_checkpoint_and_says_what_it_skipped(
    out: Path, capsys: Captured
) -> None:
    checkpoint(out, 8)
    checkpoint(out, 12, complete=False)
    assert launch() == 0
    text = capsys.readouterr().out
    assert "  resume     from checkpoint-8   written by attempt 0\n" in text
    assert "  left out   checkpoint-12 has lost weights\n" in text
    assert "differs" not in text


def test_harmless_changes_are_named_one_a_line(out: Path, capsys: Captured) -> None:
    checkpoint(out, 8)
    harmless = ["training.save_every=5", "training.log_every=1", "benchmark.num_prompts=3", "launch.restarts=2"]
    assert launch(*asked(*harmless)) == 0
    said = [line.split("differs    ")[1] for line in capsys.readouterr().out.splitlines() if "differs" in line]
    assert said == [
        "training.save_every  5, was 10min",
        "training.log_every  1, was 10",
        "benchmark.num_prompts  3, was 200",
        "launch.restarts  2, was 0",
    ]


def test_another_number_of_ranks_or_rows_keeps_the_global_batch_and_shows_the_arithmetic(
    out: Path, capsys: Captured
) -> None:
    checkpoint(out, 8)
    assert launch("--cpu-procs", "1", *asked("training.batch_size=2")) == 0
    text = capsys.readouterr().out
    assert "ranks  1, was 2; the same up to rounding" in text
    assert "strategy  single, was ddp; the same up to rounding" in text
    assert "batch  32 = 2 rows x 16 accumulation x 1 rank, was 4 x 4 x 2" in text


@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp"])
def test_any_strategy_goes_on_from_the_checkpoint_of_any_other(strategy: str, out: Path, capsys: Captured) -> None:
    checkpoint(out, 8)
    assert launch("--strategy", strategy) == 0
    assert f"strategy  {strategy}, was ddp; the same up to rounding" in capsys.readouterr().out


def test_changes_that_break_exactness_are_refused_all_at_once_with_what_to_type(out: Path, capsys: Captured) -> None:
    checkpoint(out, 8)
    before = RunDir(out).settings.read_bytes()
    wrong = ["training.learning_rate=0.1", "training.seed=7", "data.max_length=64", "training.save_every=5"]
    assert launch(*asked(*wrong)) == 2
    text = capsys.readouterr().err
    assert "settings: 3 mistakes in going on from checkpoint-8" in text
    assert "training.learning_rate  is 0.1, and checkpoint-8 was trained with 0.0002" in text
    assert "back: --set training.seed=42" in text
    assert f"--resume {out.absolute()}/checkpoint-8 goes on all the same, no longer exactly" in text
    assert "another --output-dir, or --resume never, begins anew" in text
    assert RunDir(out).settings.read_bytes() == before
    assert [attempt.number for attempt in RunDir(out).attempts()] == [0]


@pytest.mark.parametrize("words", [["launch", *COMMAND, "--resume", "out/checkpoint-8"], ["resume", "out"]], ids=str)
def test_an_explicit_resume_goes_on_with_what_can_be_used_and_says_that_it_is_not_exact(
    words: list[str], out: Path, capsys: Captured
) -> None:
    checkpoint(out, 8)
    assert run([*words, "--dry-run", *asked("training.learning_rate=0.1")]) == 0
    text = capsys.readouterr().out
    assert "resume     from checkpoint-8   written by attempt 0; no longer exact: see below" in text
    assert "differs    training.learning_rate  0.1, was 0.0002; no longer exact" in text


@pytest.mark.parametrize("words", [["launch", *COMMAND, "--resume", "out/checkpoint-8"], ["resume", "out"]], ids=str)
def test_what_the_weights_do_not_fit_is_always_refused(words: list[str], out: Path, capsys: Captured) -> None:
    checkpoint(out, 8)
    wrong = ["lora.r=16", "lora.target_modules=[v]", "model.name=c/d", "training.max_steps=3", "training.seed=7"]
    assert run([*words, "--dry-run", *asked(*wrong)]) == 2
    text = capsys.readouterr().err
    assert "settings: 4 mistakes in going on from checkpoint-8" in text
    assert (
        "lora.r  is 16, and checkpoint-8 was trained with 8, which it cannot be used with; back: --set lora.r=8" in text
    )
    assert "training.max_steps  is 3, and checkpoint-8 is past it; --set training.max_steps=8 or more" in text
    assert "goes on all the same" not in text


def test_without_a_checkpoint_every_setting_may_change(out: Path, capsys: Captured) -> None:
    checkpoint(out, 8, complete=False)
    assert launch(*asked("lora.r=16", "training.max_steps=3")) == 0
    assert "resume     from the first step   there is no checkpoint yet" in capsys.readouterr().out


def test_what_an_attempt_that_saved_nothing_was_given_does_not_stand_in_the_way(out: Path) -> None:
    path = checkpoint(out, 8)
    other = new_attempt(out.absolute(), resume_from=path.absolute())
    training = other.settings.training.model_copy(update={"learning_rate": 0.1})
    other = other.model_copy(update={"settings": other.settings.model_copy(update={"training": training})})
    for name, text in other.files().items():
        write_text(out / name, text)
    assert launch() == 0, "checkpoint-8 was trained by attempt 0, as this command would"


def test_the_default_global_batch_is_that_of_before_wherever_the_run_goes_on(out: Path) -> None:
    checkpoint(out, 8)
    assert launch("--cpu-procs", "1") == 0
    assert launch("--cpu-procs", "1", *asked("training.global_batch_size=16")) == 2


def test_ranks_that_do_not_divide_the_global_batch_are_not_sent_to_another_one(out: Path, capsys: Captured) -> None:
    checkpoint(out, 8)
    assert launch("--cpu-procs", "3") == 2
    text = capsys.readouterr().err
    assert "training.global_batch_size(32) is no multiple of batch_size(4) x ranks(3) = 12" in text
    assert "next   take ranks and a training.batch_size whose product divides 32" in text


def test_a_finished_run_is_left_alone(out: Path, capsys: Captured) -> None:
    plan = finish_training(out, exit_code=0)
    write_text(plan.run_dir.report, "{}")
    WorkerReport(ok=True, rank=0, stage="answering").save(plan.attempt_dir.report("benchmark", 0))
    for words in (["launch", *COMMAND], ["resume", "out"]):
        assert run(words) == 0
        assert "is done; there is nothing to go on with" in capsys.readouterr().out
    assert len(RunDir(out).attempts()) == 2


def test_a_finished_run_is_not_trained_on_unless_that_is_asked_for(out: Path, capsys: Captured) -> None:
    path = checkpoint(out, 8)
    finish_training(out, exit_code=0)
    assert launch(*asked("training.num_epochs=5")) == 2
    text = capsys.readouterr().err
    assert "which attempt 1 has trained to its end" in text
    assert "training.num_epochs  is 5, and the adapter was trained with 3" in text
    assert f"--resume {path.absolute()} trains on from there" in text
    assert launch("--resume", str(path), *asked("training.num_epochs=5")) == 0
    assert run(["resume", "out", "--dry-run", *asked("training.num_epochs=5")]) == 0


@pytest.mark.parametrize(
    ("outcome", "left"),
    [
        ({}, "benchmark, report, upload"),
        ({"exit_code": 75}, "benchmark, report, upload"),
        ({"exit_code": 0, "problems": ["benchmark failed: x"]}, "benchmark, report, upload"),
    ],
    ids=str,
)
def test_a_run_that_has_only_trained_has_the_rest_to_do(
    outcome: dict[str, object], left: str, out: Path, capsys: Captured
) -> None:
    finish_training(out, **outcome)
    assert launch(*asked("upload.repo_name=me/x")) == 0
    assert f"resume     trained; left to do: {left}" in capsys.readouterr().out


def test_to_begin_anew_is_said_to_keep_what_is_there(out: Path, capsys: Captured) -> None:
    checkpoint(out, 8)
    assert launch("--resume", "never", *asked("lora.r=16")) == 0
    assert (
        "resume     never: from the first step   checkpoints and adapter of 1 earlier attempt"
        in capsys.readouterr().out
    )


def test_a_run_that_goes_on_is_refused_by_name_before_anything_is_compared(out: Path, capsys: Captured) -> None:
    checkpoint(out, 8)
    with launcher_at(out) as process:
        assert run(["launch", *COMMAND, *asked("lora.r=16")]) == 3
    text = capsys.readouterr().err
    assert f"is running: attempt 0 (pid {process.pid} on here)" in text
    assert "lft status" in text


def test_files_that_were_mounted_elsewhere_are_not_taken_for_another_model(out: Path, tmp_path: Path) -> None:
    before = new_attempt(tmp_path / "one")

    def at(path: str) -> LaunchPlan:
        model = before.settings.model.model_copy(update={"name": path})
        return before.model_copy(update={"settings": before.settings.model_copy(update={"model": model})})

    assert [change.effect for change in changes(at("/old/llama"), at("/new/llama"))] == ["inexact"]
    assert [change.effect for change in changes(at("/old/llama"), at("/old/gpt"))] == ["unusable"]
    assert arithmetic(before.batch, before.batch) == ""
