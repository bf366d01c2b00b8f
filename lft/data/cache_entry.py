"""Folders of the cache that come and go with the data: held while they are used, freed when they have not been for long.

Both sides meet in one file of the folder, `in-use`: who has the folder open holds a shared lock on it, who frees the folder
needs the only one. Its time is that of the last use. The kernel lifts the locks of a process that dies.
"""

import errno
import fcntl
import os
import shutil
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

KINDS = ("tokens", "spool")
"""Folders of the cache whose folders are entries. Converted models are none: adapters name them as their base."""
MARKER = "in-use"
MANIFEST = "manifest.json"
SETTLED_SECONDS = 600.0
"""A folder written aside has no marker yet: it is left alone while something in it is younger than this."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A folder in the cache."""

    folder: Path
    size_bytes: int
    last_used: float
    """Seconds since the epoch."""
    is_finished: bool
    is_in_use: bool

    @property
    def name(self) -> str:
        """`tokens/3f2a...`"""
        return f"{self.folder.parent.name}/{self.folder.name}"


class Hold:
    """Keeps a folder from being freed until it is closed, or forgotten, or this process ends."""

    def __init__(self, stream: BinaryIO) -> None:
        # a descriptor of its own, since a forgotten stream would be warned of
        self.close = weakref.finalize(self, os.close, os.dup(stream.fileno()))
        stream.close()

    def __enter__(self) -> "Hold":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def hold(folder: Path) -> Hold | None:
    """Keep an existing folder from being freed; it is used now.

    None where the cache cannot be written, and so not be freed by us either. Raises FileNotFoundError for a folder that is
    not there, also for one that was freed just now.
    """
    marker = folder / MARKER
    try:
        stream = marker.open("ab")
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EROFS):
            return None
        raise
    with suppress(OSError):  # a file system without locks; there nothing is freed
        fcntl.flock(stream, fcntl.LOCK_SH)  # waits while it is being freed
    if not marker.exists() or not os.path.samestat(os.fstat(stream.fileno()), marker.stat()):
        stream.close()
        raise FileNotFoundError(f"{folder} was freed")
    os.utime(marker)
    return Hold(stream)


def entries(cache: Path) -> list[Entry]:
    """All of them, the longest unused first."""
    folders = [folder for kind in KINDS if (cache / kind).is_dir() for folder in (cache / kind).iterdir()]
    return sorted((_look(folder) for folder in folders if folder.is_dir()), key=lambda entry: entry.last_used)


def to_free(among: Iterable[Entry], unused_seconds: float, now: float) -> list[Entry]:
    """Those that nobody uses, nor has used for so long."""
    return [entry for entry in among if not entry.is_in_use and now - entry.last_used >= unused_seconds]


def free(entry: Entry) -> bool:
    """Remove an entry unless somebody uses it by now; whether it was removed. A new one may be made at once in its place."""
    marker = entry.folder / MARKER
    with marker.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        # under another name first, so that nobody takes what is half removed for an entry
        removed = entry.folder.with_name(f".freed-{entry.folder.name.lstrip('.')}-{os.getpid()}")
        entry.folder.rename(removed)
        shutil.rmtree(removed)
    return True


def _look(folder: Path) -> Entry:
    marker = folder / MARKER
    states = list(_states(folder))
    newest = max((state.st_mtime for state in states), default=folder.stat().st_mtime)
    is_aside = folder.name.startswith(".")
    return Entry(
        folder=folder,
        size_bytes=sum(state.st_size for state in states),
        last_used=marker.stat().st_mtime if marker.exists() else newest,
        is_finished=not is_aside and (folder.parent.name != "tokens" or (folder / MANIFEST).exists()),
        is_in_use=time.time() - newest < SETTLED_SECONDS if is_aside else _is_held(marker),
    )


def _states(folder: Path) -> Iterator[os.stat_result]:
    """Of each file in a folder that others may be writing to."""
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                yield path.stat()
        except FileNotFoundError:
            continue


def _is_held(marker: Path) -> bool:
    """Whether somebody has the folder open. Where the file system knows no locks, it is better believed to be so."""
    if not marker.exists():
        return False
    try:
        with marker.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False
