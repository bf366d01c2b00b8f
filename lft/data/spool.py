"""The spool: files that cannot be cut are written out once, in the cache, as files that can.

Gzipped files are unpacked; .json and .csv become numbered lines (unpack.py). One of the processes that share the cache does
it, under a POSIX lock, and the others wait. The lock ends with the process, so that another one takes over what a killed one
left half done.
"""

import fcntl
import gzip
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

import xxhash

from lft.core.errors import DataError
from lft.core.files import aside
from lft.core.paths import data_kind, is_zipped
from lft.data.cache import full_disk_named
from lft.data.cache_entry import Hold, hold
from lft.data.identity import file_identity
from lft.data.unpack import unpack_csv, unpack_json

VERSION = 1
"""Raise it when the same file would be written out otherwise."""
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
"""Without a byte written, after which the holder of the lock is taken to be suspended."""

Write = Callable[[Path], None]
Unpack = Callable[[IO[bytes], IO[bytes]], None]


def spooled(path: Path, cache: Path) -> Path:
    """The spool of a data file, written now if it is not there yet. Raises DataError where `path` cannot be read."""
    return spool(cache, _identity(path), _suffix(path), _writer(path))


def needs_spool(path: Path, cache: Path) -> bool:
    """Whether a data file has to be written out before it can be read in blocks, and has not been yet."""
    is_cut = is_zipped(path) or data_kind(path) in _UNPACK
    return is_cut and not _made(cache, _identity(path), _suffix(path)).exists()


def forget_spool(path: Path, cache: Path) -> None:
    """Have a data file written out again at its next use."""
    _made(cache, _identity(path), _suffix(path)).unlink(missing_ok=True)


def spool(cache: Path, identity: list[object], suffix: str, write: Write) -> Path:
    """A file in the cache named by `identity`; `write` makes it where no process has done so.

    It is kept from being freed as long as this process lives.
    """
    made = _made(cache, identity, suffix)
    folder = made.parent
    folder.mkdir(parents=True, exist_ok=True)
    if folder not in _in_use:
        _in_use[folder] = hold(folder)
    if not made.exists():
        with _claimed(folder / "lock"):
            if not made.exists():
                with aside(made) as temporary:
                    write(temporary)
    return made


_in_use: dict[Path, Hold | None] = {}


def _made(cache: Path, identity: list[object], suffix: str) -> Path:
    return cache / "spool" / xxhash.xxh3_128_hexdigest(repr([VERSION, *identity]).encode()) / f"rows{suffix}"


def _identity(path: Path) -> list[object]:
    return [data_kind(path), is_zipped(path), *file_identity(path)]


def _suffix(path: Path) -> str:
    return ".lines" if data_kind(path) in _UNPACK else data_kind(path)


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process; wait for whoever has it, as long as something is written.

    A holder that is suspended is not waited for: what two write aside is the same, and the lock only saves work.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    waiting_since = time.time()
    try:
        while time.time() - _last_written(path.parent, waiting_since) < PATIENCE_SECONDS:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                time.sleep(POLL_SECONDS)
                continue
            for left in path.parent.glob(".rows-*"):  # of a process that was killed, since nobody else holds the lock
                left.unlink(missing_ok=True)
            break
        yield
    finally:
        os.close(handle)


def _last_written(folder: Path, waiting_since: float) -> float:
    """When anything was written aside here, in seconds since the epoch; at least `waiting_since`."""
    times = [waiting_since]
    for path in folder.glob(".rows-*"):
        with suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return max(times)


def _writer(path: Path) -> Write:
    unpack: Unpack = _UNPACK.get(data_kind(path), shutil.copyfileobj)
    open_packed: Callable[[Path], IO[bytes]] = _open_zipped if is_zipped(path) else _open_plain

    def write(target: Path) -> None:
        try:
            with full_disk_named(target), open_packed(path) as packed, target.open("wb") as plain:
                unpack(packed, plain)
        except DataError as error:
            raise DataError(f"{path}{error.message}", next_step=error.next_step) from None
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}  cannot be read: {error}") from None

    return write


def _open_plain(path: Path) -> IO[bytes]:
    return path.open("rb")


def _open_zipped(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path))


_UNPACK: dict[str, Unpack] = {".json": unpack_json, ".csv": unpack_csv}
