"""A rank's heartbeat: what it is doing and how far it is, in a file it rewrites; no collective, no other rank."""

import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

MOST_OFTEN_SECONDS = 1.0


class Beat(BaseModel):
    """The stage a rank is in and the steps it has done there."""

    model_config = ConfigDict(frozen=True)

    stage: str
    step: int | None = None
    total: int | None = None
    time_ns: int
    """When this stage and step were first true."""

    @classmethod
    def load(cls, path: Path) -> "Beat | None":
        """A rank's newest beat, or None where it has none yet."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None


class Heart:
    """Writes the beats of one rank: every stage, and steps at most once in MOST_OFTEN_SECONDS.

    `last` is always the newest, written or not, for this rank's own failure report.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.last = path, Beat(stage="starting", time_ns=time.time_ns())
        path.parent.mkdir(parents=True, exist_ok=True)
        self._aside = path.with_name(f".{path.name}")
        self._written = 0.0

    def beat(self, stage: str, step: int | None = None, total: int | None = None) -> None:
        """Tell that this rank goes on. A full disk must not stop it."""
        is_new_stage = stage != self.last.stage
        self.last = Beat(stage=stage, step=step, total=total, time_ns=time.time_ns())
        now = time.monotonic()
        if is_new_stage or step == total or now - self._written >= MOST_OFTEN_SECONDS:
            self._written = now
            self._write()

    def _write(self) -> None:
        # renamed but not synced: it is for readers of this moment, and a step must not wait for a disk
        try:
            self._aside.write_text(self.last.model_dump_json(), encoding="utf-8")
            self._aside.replace(self.path)
        except OSError:
            return
