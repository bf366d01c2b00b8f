"""lft resume refuses, before it touches anything, what its checkpoint cannot go on with."""

from pathlib import Path

import pytest

from lft.cli.main import run
from lft.core.files import write_text
from lft.core.run_dir import RunDir
from lft.core.settings import Strategy
from lft.launch.resuming import misfits
from lft.plan.launch_plan import LaunchPlan
from tests.runs import checkpoint, new_attempt

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of two CPU ranks under ddp, named as a user would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    new_attempt(Path("out"))
    return Path("out")


def asked(*settings: str) -> list[str]:
    """`--set` before each."""
    return [word for setting in settings for word in ("--set", setting)]


def planned(plan: LaunchPlan, strategy: Strategy, ranks: int) -> LaunchPlan:
    """The plan with another strategy and number of ranks."""
    topology = plan.topology.model_copy(update={"ranks_per_node": ranks})
    return plan.model_copy(update={"strategy": strategy, "topology": topology})


def test_all_settings_that_do_not_fit_the_checkpoint_are_refused_at_once_and_the_run_is_left_as_it_was(
    out: Path, capsys: Captured
) -> None:
    checkpoint(out, 8)
    before = RunDir(out).settings.read_bytes()
    wrong = ["lora.r=16", "data.text_columns=[text]", "model.name=c/d", "training.seed=7", "training.max_steps=3"]
    assert run(["resume", "out", *asked(*wrong)]) == 2
    text = capsys.readouterr().err
    assert "settings: 5 mistakes in a resume from checkpoint-8" in text
    assert "lora.r  is 16, and checkpoint-8 was trained with 8; --set lora.r=8" in text
    assert 'data.text_columns  is ["text"], and checkpoint-8 was trained with null' in text
    assert "model.name  is c/d, and checkpoint-8 was trained with a/b; --set model.name=a/b" in text
    assert "training.max_steps  is 3, and checkpoint-8 is past it; --set training.max_steps=8 or more" in text
    assert RunDir(out).settings.read_bytes() == before
    assert [attempt.number for attempt in RunDir(out).attempts()] == [0]


def test_a_checkpoint_in_another_strategys_format_is_refused_with_the_strategy_to_ask_for(
    out: Path, capsys: Captured
) -> None:
    checkpoint(out, 8)
    assert run(["resume", "out", "--strategy", "fsdp"]) == 2
    text = capsys.readouterr().err
    assert "launch.strategy  is fsdp, and checkpoint-8 is in the format of ddp; --strategy ddp" in text


def test_settings_that_leave_weights_and_rows_alone_may_change(out: Path) -> None:
    checkpoint(out, 8)
    changed = ["training.learning_rate=1e-3", "training.max_steps=8", "training.global_batch_size=16"]
    changed += ["data.max_length=64", "launch.grace_seconds=5"]
    assert run(["resume", "out", "--dry-run", *asked(*changed)]) == 0


def test_without_a_checkpoint_every_setting_may_change(out: Path) -> None:
    checkpoint(out, 8, complete=False)
    assert run(["resume", "out", "--dry-run", *asked("lora.r=16", "training.max_steps=3")]) == 0


def test_a_run_whose_settings_a_refused_attempt_left_changed_is_told_the_way_back(out: Path, capsys: Captured) -> None:
    path = checkpoint(out, 8)
    poisoned = new_attempt(out, resume_from=path)
    lora = poisoned.settings.lora.model_copy(update={"r": 16})
    poisoned = poisoned.model_copy(update={"settings": poisoned.settings.model_copy(update={"lora": lora})})
    for name, text in poisoned.files().items():
        write_text(out / name, text)
    assert run(["resume", "out", "--dry-run"]) == 2
    assert "--set lora.r=8" in capsys.readouterr().err
    assert run(["resume", "out", "--dry-run", *asked("lora.r=8")]) == 0


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        (("ddp", 2), ("single", 1), []),
        (("ddp", 2), ("ddp", 4), []),
        (("zero3", 2), ("zero3", 2), []),
        (("zero2", 2), ("ddp", 2), ["launch.strategy  is ddp, and checkpoint-3 is in the format of zero2"]),
        (("fsdp", 2), ("zero3", 2), ["launch.strategy  is zero3, and checkpoint-3 is in the format of fsdp"]),
        (("zero3", 2), ("zero3", 4), ["--cpu-procs  makes 4 ranks, and checkpoint-3 has parts of 2"]),
        (("fsdp", 4), ("single", 1), ["launch.strategy  is single", "--cpu-procs  makes 1 rank,"]),
    ],
    ids=str,
)
def test_a_checkpoint_of_parts_needs_its_strategy_and_its_ranks_and_a_whole_one_neither(
    before: tuple[Strategy, int], now: tuple[Strategy, int], found: list[str], tmp_path: Path
) -> None:
    plan = new_attempt(tmp_path)
    mistakes = misfits(tmp_path / "checkpoint-3", planned(plan, *before), planned(plan, *now))
    assert len(mistakes) == len(found)
    assert all(mistake.startswith(start) for mistake, start in zip(mistakes, found, strict=True))
