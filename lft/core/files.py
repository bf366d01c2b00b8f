"""Writing files so that nobody ever sees half of one: write aside, fsync, rename."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; on success it is synced and renamed to `path`, on error removed.

    The name keeps the suffix of `path`, which some writers insist on. Raises OSError as the file system does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _finish(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; on success it becomes `folder`, unless another process was faster.

    For folders named by their content: whoever renames first wins, and the other's equal copy is thrown away.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        for path in temporary.rglob("*"):
            if path.is_file():
                _finish(path)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
        _sync_names(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def files_aside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder inside `folder`; on success each file in it is synced and moved up, replacing old ones."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".saving-"))
    try:
        yield temporary
        written = sorted(path for path in temporary.iterdir() if path.is_file())
        for path in written:
            _finish(path)
        for path in written:
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync_names(folder: Path) -> None:
    """Put a folder's list of names on the disk: without it a loss of power may undo a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8) in one step."""
    with aside(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _finish(path: Path) -> None:
    """Give a file the usual rights (temporary files are 0600, which a shared folder cannot use) and put it on the disk."""
    path.chmod(0o666 & ~_umask())
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
