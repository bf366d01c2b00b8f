"""Stopping by itself before SLURM's time limit, early enough to finish the step and save, and no earlier."""

import threading
import time
from itertools import islice
from math import ceil
from pathlib import Path

from lft.core.events import Event
from lft.launch.pace import lines_backwards, parsed_event
from lft.launch.slurm import end_time

MARGIN_SECONDS = 60.0
"""SLURM may be up to a minute early, and ranks need some seconds to leave."""
LARGEST_SHARE = 0.25
"""Of a job's time, at most so much is left: short jobs would otherwise do nothing else than stop."""
SECONDS_BETWEEN_ASKING = 60.0
"""The end of a job can be moved while it runs."""
MOST_MEASURED = 500


def lead_seconds(step_seconds: list[float], save_seconds: list[float], whole_seconds: float) -> float:
    """How long before the end a stop begins: 2 x p95(step) + p95(save) + a margin, bounded for short jobs. Pure."""
    needed = 2 * p95(step_seconds) + p95(save_seconds) + MARGIN_SECONDS
    return min(needed, LARGEST_SHARE * whole_seconds)


def p95(values: list[float]) -> float:
    """The value that 95 % do not exceed (nearest rank); 0 of none."""
    return sorted(values)[ceil(0.95 * len(values)) - 1] if values else 0.0


class TimeLimit:
    """The end of a job, as SLURM tells it, and the lead learned from rank 0's steps and saves, also of earlier lives."""

    def __init__(self, job_id: str, events: Path) -> None:
        self.job_id = job_id
        self.ends_at: float | None = None
        self.step_seconds: list[float] = []
        self.save_seconds: list[float] = []
        self._began = time.time()
        self._step: Event | None = None
        if events.exists():
            for line in reversed(list(islice(lines_backwards(events), MOST_MEASURED))):
                if event := parsed_event(line):
                    self.note(event)
        threading.Thread(target=self._ask, daemon=True).start()  # SLURM may take seconds to answer

    def note(self, event: Event) -> None:
        """Learn from an event of rank 0."""
        if event.kind == "stage":
            self._step = None
        elif event.kind == "step":
            before = self._step
            if before is not None and (steps := event.data["step"] - before.data["step"]) > 0:
                self.step_seconds = [*self.step_seconds[-MOST_MEASURED:], (event.time - before.time) / steps]
            self._step = event
        elif event.kind == "saved" and self._step is not None:
            self.save_seconds = [*self.save_seconds[-MOST_MEASURED:], event.time - self._step.time]
            self._step = None  # the next step's time would hold this save

    @property
    def lead_seconds(self) -> float:
        """How long before the end a stop is to begin."""
        whole = (self.ends_at or self._began) - self._began
        return lead_seconds(self.step_seconds, self.save_seconds, whole)

    def is_near(self) -> bool:
        """Whether it is time to stop; never where SLURM does not tell the end."""
        return self.ends_at is not None and time.time() >= self.ends_at - self.lead_seconds

    def _ask(self) -> None:
        while True:
            self.ends_at = end_time(self.job_id) or self.ends_at
            time.sleep(SECONDS_BETWEEN_ASKING)
