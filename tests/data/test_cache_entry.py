"""Prepared data is freed when it has not been used for long, and never while a process has it open."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lft.data.cache_entry import MARKER, Entry, entries, free, hold, to_free

HOUR, DAY = 3600.0, 86400.0
HOLDER = """
import sys, pathlib
from lft.data.cache_entry import hold
stream = hold(pathlib.Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def entry_at(cache: Path, name: str, days_ago: float = 0.0, *, finished: bool = True, marked: bool = True) -> Path:
    """A folder of 1,000 bytes, used so long ago."""
    folder = cache / name
    folder.mkdir(parents=True)
    (folder / "block-000000.arrow").write_bytes(b"x" * 1000)
    if finished:
        (folder / "manifest.json").write_bytes(b"")
    if marked:
        (folder / MARKER).touch()
    for path in [*folder.iterdir(), folder]:
        os.utime(path, (time.time() - days_ago * DAY,) * 2)
    return folder


def names(found: list[Entry]) -> list[str]:
    return [entry.name for entry in found]


def test_entries_are_told_with_size_and_last_use_the_longest_unused_first(tmp_path: Path) -> None:
    entry_at(tmp_path, "tokens/new", 1)
    entry_at(tmp_path, "spool/old", 50)
    entry_at(tmp_path, "models/kept-for-adapters", 90)
    entry_at(tmp_path, "tokens/killed", 40, finished=False, marked=False)
    found = entries(tmp_path)
    assert names(found) == ["spool/old", "tokens/killed", "tokens/new"]
    assert [entry.size_bytes for entry in found] == [1000] * 3
    assert [entry.is_finished for entry in found] == [True, False, True]
    assert [round((time.time() - entry.last_used) / DAY) for entry in found] == [50, 40, 1]
    assert names(to_free(found, 30 * DAY, time.time())) == ["spool/old", "tokens/killed"]
    assert entries(tmp_path / "none") == []


def test_opening_an_entry_is_a_use_of_it(tmp_path: Path) -> None:
    folder = entry_at(tmp_path, "tokens/a", 50)
    held = hold(folder)
    assert held is not None
    held.close()
    (entry,) = entries(tmp_path)
    assert time.time() - entry.last_used < HOUR
    assert not entry.is_in_use


def test_what_another_process_has_open_is_not_freed_until_that_process_has_ended(tmp_path: Path) -> None:
    folder = entry_at(tmp_path, "tokens/a", 50)
    (unheld,) = entries(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        (held,) = entries(tmp_path)
        assert held.is_in_use
        assert to_free([held], 0, time.time()) == []
        assert not free(unheld), "seen before it was opened, freed after it was"
        assert (folder / "manifest.json").exists()
    finally:
        holder.kill()
        holder.communicate()
    assert free(unheld)
    assert not folder.exists()
    assert entries(tmp_path) == []


def test_several_processes_may_have_an_entry_open(tmp_path: Path) -> None:
    folder = entry_at(tmp_path, "tokens/a")
    first, second = hold(folder), hold(folder)
    assert first is not None
    assert second is not None
    (entry,) = entries(tmp_path)
    first.close()
    assert not free(entry)
    second.close()
    assert free(entry)


def test_opening_what_was_freed_meanwhile_is_an_error_the_caller_can_prepare_upon(tmp_path: Path) -> None:
    folder = entry_at(tmp_path, "tokens/a")
    (entry,) = entries(tmp_path)
    assert free(entry)
    with pytest.raises(FileNotFoundError):
        hold(folder)


def test_a_folder_being_written_aside_is_left_alone_and_an_old_one_is_not(tmp_path: Path) -> None:
    entry_at(tmp_path, "spool/.new-x1", 0, marked=False)
    entry_at(tmp_path, "spool/.killed-x2", 2, marked=False)
    found = entries(tmp_path)
    assert not any(entry.is_finished for entry in found)
    assert names(to_free(found, 0, time.time())) == ["spool/.killed-x2"]
