"""Which checkpoint a run goes on from, whose it is, and what is moved out of its way and never deleted."""

from pathlib import Path

import pytest

from lft.core.checkpoints import MANIFEST
from lft.core.errors import SettingsError
from lft.core.files import write_text
from lft.core.run_dir import RunDir
from lft.launch.resuming import named_point, resume_point, set_aside
from tests.runs import checkpoint, new_attempt


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_run_goes_on_from_the_newest_checkpoint_of_which_every_file_is_what_was_written(tmp_path: Path) -> None:
    new_attempt(tmp_path)
    for step in (5, 10, 100, 110, 120, 130):
        checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-130" / "weights").unlink()
    (tmp_path / "checkpoint-120" / "weights").write_text("abd")
    (tmp_path / "checkpoint-110" / MANIFEST).unlink()
    point = resume_point(RunDir(tmp_path))
    assert point.checkpoint == tmp_path / "checkpoint-100"
    assert point.left_out == (
        "checkpoint-130 has lost weights",
        "checkpoint-120 is damaged: weights is not what was written",
        "checkpoint-110 is not complete: its manifest is missing",
    )


def test_a_checkpoint_is_that_of_the_newest_attempt_that_began_before_its_step(tmp_path: Path) -> None:
    new_attempt(tmp_path)
    new_attempt(tmp_path, resume_from=checkpoint(tmp_path, 5))
    new_attempt(tmp_path, resume_from=checkpoint(tmp_path, 9))  # and failed before it saved anything
    point = resume_point(RunDir(tmp_path))
    assert point.written_by is not None
    assert (point.step, point.written_by.number) == (9, 1)


def test_a_checkpoint_without_a_run_around_it_is_left_out_unless_it_is_named(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 5)
    assert resume_point(RunDir(tmp_path)).left_out == ("checkpoint-5 is of no attempt known here",)
    assert named_point(path).checkpoint == path


def test_a_named_run_means_its_newest_checkpoint_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    new_attempt(tmp_path)
    whole, damaged = checkpoint(tmp_path, 5), checkpoint(tmp_path, 9, complete=False)
    assert named_point(tmp_path).checkpoint == whole
    with pytest.raises(SettingsError, match="checkpoint-9  has lost weights"):
        named_point(damaged)
    with pytest.raises(SettingsError, match="holds no checkpoint to go on from"):
        named_point(tmp_path / "elsewhere")


def test_a_run_that_begins_anew_keeps_all_of_before_in_a_folder_of_its_own(tmp_path: Path) -> None:
    run_dir = new_attempt(tmp_path).run_dir
    for step in (5, 10):
        checkpoint(tmp_path, step)
    for path in (*run_dir.adapter, run_dir.report):
        write_text(path, "before")
    write_text(tmp_path / "notes.txt", "its user's")
    assert set_aside(run_dir, 1, None) == run_dir.before_attempt(1)
    kept = [
        "adapter_config.json",
        "adapter_model.safetensors",
        "checkpoint-10",
        "checkpoint-5",
        "lft.json",
        "report.json",
    ]
    assert names(run_dir.before_attempt(1)) == kept
    assert names(tmp_path) == ["notes.txt", "run"]
    assert resume_point(run_dir).checkpoint is None
    assert set_aside(run_dir, 2, None) is None


def test_what_lies_behind_the_start_of_an_attempt_is_moved_away_and_its_adapter_stays(tmp_path: Path) -> None:
    run_dir = new_attempt(tmp_path).run_dir
    start = checkpoint(tmp_path, 5)
    checkpoint(tmp_path, 10)
    write_text(run_dir.adapter_config, "{}")
    set_aside(run_dir, 1, start)
    assert names(run_dir.before_attempt(1)) == ["checkpoint-10"]
    assert names(tmp_path) == ["adapter_config.json", "checkpoint-5", "run"]


def test_a_run_that_went_on_from_another_one_does_so_again_until_it_has_saved(tmp_path: Path) -> None:
    new_attempt(tmp_path / "one")
    start = checkpoint(tmp_path / "one", 5)
    run_dir = new_attempt(tmp_path / "two").run_dir
    checkpoint(tmp_path / "two", 2)
    new_attempt(tmp_path / "two", resume_from=start)
    set_aside(run_dir, 1, start)
    assert resume_point(run_dir).checkpoint == start
    own = checkpoint(tmp_path / "two", 7)
    assert resume_point(run_dir).checkpoint == own
