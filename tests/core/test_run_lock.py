"""One run at a time: with the kernel's lock, which no crash leaves behind, and where a file system has none."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lft.core.errors import PreflightError
from lft.core.run_dir import RunDir
from lft.core.run_lock import alone, is_held

HOLD = """
import errno, fcntl, sys
from pathlib import Path
from lft.core.run_dir import RunDir
from lft.core.run_lock import alone
if sys.argv[2] == "no flock":
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")
    fcntl.flock = flock
with alone(RunDir(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(folder), kind]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(params=["flock", "no flock"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system with locks, and one without."""
    if request.param == "no flock":

        def flock(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr(fcntl, "flock", flock)
    return str(request.param)


def test_a_second_run_is_refused_while_the_first_lives_and_a_kill_leaves_no_lock(kind: str, tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert not is_held(run_dir)
    with holder(tmp_path, kind) as process:
        assert is_held(run_dir)
        with pytest.raises(PreflightError, match="another run is using"), alone(run_dir):
            pass
        process.kill()
        process.wait()
        assert not is_held(run_dir)
        with alone(run_dir):
            assert is_held(run_dir)
    assert not is_held(run_dir)


def test_a_file_that_names_a_process_whose_number_was_given_to_another_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with holder(tmp_path, "no flock"):
        held = (tmp_path / "run" / "lock.held").read_text(encoding="utf-8").splitlines()

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    held[0] = str(os.getpid())  # it lives, but was started at another time
    (tmp_path / "run" / "lock.held").write_text("\n".join(held) + "\n", encoding="utf-8")
    assert not is_held(RunDir(tmp_path))
    with alone(RunDir(tmp_path)):
        pass


def test_a_file_of_another_host_is_believed_and_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock.held").write_text("4711\ngpu-a2\n", encoding="utf-8")
    with (
        pytest.raises(PreflightError, match=r"if that host has crashed, remove .*/run/lock\.held"),
        alone(RunDir(tmp_path)),
    ):
        pass
