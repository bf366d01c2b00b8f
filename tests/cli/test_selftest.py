"""lft selftest preempt: what an administrator sees of it, when all is well and when it is not."""

import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lft.cli import selftest_preempt
from lft.cli.main import run
from lft.cli.selftest_preempt import Launch, Trial
from tests.conftest import run_lft

Captured = pytest.CaptureFixture[str]


@pytest.mark.long
def test_a_run_that_is_stopped_and_continued_is_found_to_end_as_one_left_alone(tmp_path: Path) -> None:
    done = run_lft("selftest", "preempt", "--cpu-procs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "interrupted  exit 75 after" in done.stdout
    assert "continued    exit  0 after" in done.stdout
    assert "tensors, the same bits in each" in done.stdout
    assert "continued ends as one that was left alone" in done.stdout
    assert "kept" not in done.stdout
    assert list(tmp_path.iterdir()) == [], "it works in a folder of its own"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the trial works; signals stay pytest's."""
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return tmp_path


def test_one_bit_of_difference_is_found_and_the_folder_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def launch(trial: Trial, name: str, stop_when: object = None) -> Launch:
        has_begun = trial.adapter(name).exists()
        weights = np.full(3, 1.0 if name == "undisturbed" else np.nextafter(np.float32(1), np.float32(2)), np.float32)
        trial.adapter(name).parent.mkdir(exist_ok=True)
        save_file({"a": weights}, trial.adapter(name))
        return Launch(0 if has_begun or name == "undisturbed" else 75, 1.0, 0.1)

    monkeypatch.setattr(Trial, "launch", launch)
    monkeypatch.setattr(selftest_preempt, "complete", lambda _: [Path("checkpoint-21")])
    assert run(["selftest", "preempt"]) == 64
    text = capsys.readouterr().out
    assert "1 of 1 tensors differ, by 1.2e-07 at most" in text
    assert "does not end as one that was left alone" in text
    assert f"kept       {folder}" in text
    assert (folder / "interrupted").is_dir()


def test_a_run_that_fails_is_shown_with_its_last_lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    def launch(trial: Trial, name: str, stop_when: object = None) -> Launch:
        (trial.folder / f"{name}.out").write_text("the GPU is on fire\n", encoding="utf-8")
        return Launch(64, 1.0)

    monkeypatch.setattr(Trial, "launch", launch)
    assert run(["selftest", "preempt", "--gpus", "2"]) == 64
    captured = capsys.readouterr()
    assert "the interrupted run ended with exit code 64 instead of 75:\n    the GPU is on fire" in captured.err
    assert "--gpus 2 --set training.max_steps=60" in captured.out
