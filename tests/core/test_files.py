"""Nobody ever sees half a file, whatever happens to its writer."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from lft.core.files import aside, files_aside, folder_aside, write_text

WAIT_SECONDS = 20.0


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Another umask for a while."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    """The rights of a path."""
    return path.stat().st_mode & 0o777


def fail_inside(writing: AbstractContextManager[Path], name: str = "") -> None:
    """Write to the path a writer gives, or to a file below it, and fail before the end."""
    with writing as temporary:
        (temporary / name).write_text("half")
        raise OSError("disk full")


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    write_text(path, "old")
    with aside(path) as temporary:
        temporary.write_text("half")
        assert (path.read_text(), temporary.suffix, temporary.parent) == ("old", ".json", path.parent)
        temporary.write_text("new")
        moved = temporary.stat().st_ino
    assert path.stat().st_ino == moved, "renamed, since copying would show half of it for a moment"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_beside_a_busy_writer_only_ever_sees_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "file"
    script = f"""
from pathlib import Path
from lft.core.files import write_text
while True:
    for letter in "ab":
        write_text(Path({str(path)!r}), letter * 100_000)
"""
    with subprocess.Popen([sys.executable, "-c", script]) as writer:
        seen: set[str] = set()
        deadline = time.monotonic() + WAIT_SECONDS
        while len(seen) < 2 and time.monotonic() < deadline:
            if path.exists():
                text = path.read_text()
                assert len(text) == 100_000
                seen |= set(text)
        writer.kill()
    assert seen == {"a", "b"}


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_text(path, "old")
    with pytest.raises(OSError, match="disk full"):
        fail_inside(aside(path))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_rights_of_new_files_and_folders_follow_the_umask(mask: int, tmp_path: Path) -> None:
    with umask(mask):
        write_text(tmp_path / "one", "1")
        with files_aside(tmp_path) as temporary:
            (temporary / "two").write_text("2")
            (temporary / "two").chmod(0o600)
        with folder_aside(tmp_path / "folder") as temporary:
            (temporary / "three").write_text("3")
            (temporary / "three").chmod(0o600)
    assert [mode(tmp_path / name) for name in ("one", "two", "folder/three")] == 3 * [0o666 & ~mask]
    assert mode(tmp_path / "folder") == 0o777 & ~mask


def test_files_are_replaced_together_or_not_at_all(tmp_path: Path) -> None:
    for name in ("config", "weights", "other"):
        (tmp_path / name).write_text("old")
    with pytest.raises(OSError, match="disk full"):
        fail_inside(files_aside(tmp_path), "config")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        ("config", "weights", "other"), "old"
    )
    with files_aside(tmp_path) as temporary:
        for name in ("config", "weights"):
            (temporary / name).write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "config": "new",
        "weights": "new",
        "other": "old",
    }


def test_of_two_processes_that_make_the_same_folder_one_whole_folder_is_left(tmp_path: Path) -> None:
    folder, gate = tmp_path / "cache" / "folder", tmp_path / "gate"
    script = f"""
import os, sys, time
from pathlib import Path
from lft.core.files import folder_aside
with folder_aside(Path({str(folder)!r})) as temporary:
    for number in range(20):
        (temporary / f"{{number}}").write_text(sys.argv[1])
    print("ready", flush=True)
    while not Path({str(gate)!r}).exists():
        time.sleep(0.001)
"""
    racers = [
        subprocess.Popen([sys.executable, "-c", script, name], stdout=subprocess.PIPE, text=True) for name in "ab"
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    assert not folder.exists(), "nothing is there before it is whole"
    gate.touch()
    for racer in racers:
        racer.communicate(timeout=WAIT_SECONDS)
    assert [racer.returncode for racer in racers] == [0, 0]
    contents = {path.name: path.read_text() for path in folder.iterdir()}
    assert contents.keys() == {str(number) for number in range(20)}
    assert len(set(contents.values())) == 1, "all of one process"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_that_could_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk full"):
        fail_inside(folder_aside(tmp_path / "folder"), "file")
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(NotADirectoryError), folder_aside(tmp_path / "taken") as temporary:
        (temporary / "file").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
