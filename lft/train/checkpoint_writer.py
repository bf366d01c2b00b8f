"""Writing checkpoints while training goes on: aside, synced, read again, renamed; then the oldest are removed.

Training waits only for the copies in memory, and for an earlier checkpoint that is still being written. A disk that is full
costs the checkpoint, never the run.
"""

import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from safetensors import SafetensorError

from lft.core.checkpoints import PREFIX
from lft.core.files import folder_aside
from lft.train.checkpoint import Snapshot, write_snapshot

TellSave = Callable[[int, float], None]
"""Told of each checkpoint that is there: its step, and the seconds it took."""
logger = logging.getLogger(__name__)


class CheckpointWriter:
    """Writes one snapshot at a time into `output_dir`; then `to_remove` says which are no longer kept. For rank 0."""

    def __init__(self, output_dir: Path, to_remove: Callable[[], list[Path]], tell: TellSave) -> None:
        self.output_dir, self.to_remove, self.tell = output_dir, to_remove, tell
        clear_remains(output_dir)
        self.newest: int | None = None
        """The step of the newest checkpoint that this run has written."""
        self.problem = ""
        """Why the newest one was not written; nothing when it was."""
        self._thread: Thread | None = None
        self._error: Exception | None = None

    def write(self, snapshot: Snapshot) -> None:
        """Begin to write. Raises AdapterError where the one before held values that are not finite."""
        self.wait()
        self._thread = Thread(target=self._write, args=(snapshot,), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the checkpoint that is being written is there, or has failed. Raises AdapterError as `write` does."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _write(self, snapshot: Snapshot) -> None:
        step, started, before = snapshot.state.step, time.monotonic(), self.problem
        folder = self.output_dir / f"{PREFIX}{step}"
        try:
            if folder.exists():  # of the same step, of an attempt before; damaged, or it would have been gone on from
                remove(folder)
            with folder_aside(folder) as temporary:
                write_snapshot(snapshot, temporary)
            self.newest, self.problem = step, ""
            self.tell(step, time.monotonic() - started)
            for old in self.to_remove():
                remove(old)
        except (OSError, SafetensorError) as error:
            self.problem = _words(error)
            if self.problem != before:  # said once, not at every save
                logger.warning("%s could not be saved, training goes on: %s", folder.name, self.problem)
        except Exception as error:
            self._error, self.problem = error, str(error)


def _words(error: OSError | SafetensorError) -> str:
    """What the system says; safetensors, written in Rust, has its number in the text."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    number = re.search(r"os error (\d+)", str(error))
    return os.strerror(int(number[1])) if number else str(error)


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint so that half of it never looks like one."""
    gone = checkpoint.with_name(f".{checkpoint.name}-removed")
    shutil.rmtree(gone, ignore_errors=True)
    checkpoint.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def clear_remains(output_dir: Path) -> None:
    """Remove what was being written or removed when an earlier attempt was killed."""
    for remains in output_dir.glob(f".{PREFIX}*"):
        shutil.rmtree(remains, ignore_errors=True)
