"""A rank's heartbeat: what it is doing and how far it is, in a file of its own; no collective, no other rank."""

import os
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

BYTES = 256
"""Of every beat, so that a shorter one leaves nothing of a longer one."""


class Beat(BaseModel):
    """The stage a rank is in and the steps it has done there."""

    model_config = ConfigDict(frozen=True)

    stage: str
    step: int | None = None
    total: int | None = None
    time_ns: int
    """When the rank last went on."""

    @classmethod
    def load(cls, path: Path) -> "Beat | None":
        """A rank's newest beat, or None where it has none yet."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None


class Heart:
    """Writes the beats of one rank, each over the last: microseconds, also where the run directory is on a network.

    `last` is the newest, for this rank's own failure report.
    """

    def __init__(self, path: Path) -> None:
        self.last = Beat(stage="starting", time_ns=time.time_ns())
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def beat(self, stage: str, step: int | None = None, total: int | None = None) -> None:
        """Tell that this rank goes on. A full disk must not stop it."""
        self.last = Beat(stage=stage, step=step, total=total, time_ns=time.time_ns())
        with suppress(OSError):
            os.pwrite(self._file, self.last.model_dump_json().encode().ljust(BYTES), 0)
