"""A checkpoint that can be trusted: what the Trainer writes on all ranks, and a manifest, written last.

Without its manifest a folder is no checkpoint, so a rank that dies while it saves leaves nothing that looks like one.
"""

import os
import shutil
from pathlib import Path
from typing import Any

from lft.core.checkpoints import MANIFEST, FileDigest, Manifest
from lft.train.process_group import wait_for_all


def make_room(folder: Path, *, is_main: bool) -> None:
    """Remove what an earlier attempt left in `folder`. Every rank must call it before it writes."""
    if is_main:
        (folder / MANIFEST).unlink(missing_ok=True)  # first, so that half of a checkpoint is never a whole one
        shutil.rmtree(folder, ignore_errors=True)
    wait_for_all()


def complete(folder: Path, facts: dict[str, Any], *, is_main: bool) -> None:
    """Write the manifest once every rank has written its part. Every rank must call it."""
    wait_for_all()
    if not is_main:
        return
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    files = {path.relative_to(folder).as_posix(): FileDigest.of(path) for path in paths}
    Manifest(**facts, files=files).save(folder)
