"""The cache folder, checked before anything is put into it."""

import errno
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lft.core.errors import PreflightError
from lft.core.rank import CACHE, cache_folder


def usable_cache() -> Path:
    """The folder for converted models and tokenized data. Raises PreflightError where nothing can be written there."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise PreflightError(
            f"the cache folder {folder} cannot be written: {error.strerror}",
            next_step=f"name another one: export {CACHE}=...",
        ) from None


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """A full disk, met while `path` in the cache is written, becomes a PreflightError that says what can be done."""
    try:
        yield
    except OSError as error:
        # pyarrow tells the number in words only
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) and f"errno {errno.ENOSPC}]" not in str(error):
            raise
        raise PreflightError(
            f"the disk of the cache is full: {path.parent} cannot be written",
            next_step=f"lft data prune --all, or another folder: export {CACHE}=...",
        ) from None
