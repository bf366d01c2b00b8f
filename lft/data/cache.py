"""The cache folder, checked before anything is put into it."""

import tempfile
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
