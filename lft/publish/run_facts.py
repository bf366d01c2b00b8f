"""Everything the page of a run is made from, whether the run is done, goes on or has failed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lft.core.settings import RunSettings
from lft.publish.history import History
from lft.publish.report import Report

State = Literal["done", "running", "stopped", "failed", "unfinished"]
"""`unfinished`: nobody says how it ended."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One thing the plan decided, and why."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptFacts:
    """One attempt; times are in seconds since the epoch, 0 where they are not known."""

    number: int
    began: float
    ended: float
    resumed_from: str
    """The checkpoint it went on from; nothing for the first step."""
    state: State
    words: str
    """How it ended, or that it has not."""
    next_step: str = ""
    """What its launcher said to type next."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run as its folder tells it."""

    output_dir: Path
    settings: RunSettings
    report: Report
    """As write_report makes it; `training` and `benchmark` are null as long as they have not ended."""
    choices: tuple[Choice, ...]
    notices: tuple[str, ...]
    memory_bytes: dict[str, int]
    """The predicted need of each device by part; empty where nothing is known of the model."""
    memory_unit: str
    """`rank` or `GPU`."""
    attempts: tuple[AttemptFacts, ...]
    """The first one first; at least one."""
    history: History
    again: str
    """What measures it again, where nothing was trained here but an adapter from elsewhere was benchmarked."""

    @property
    def name(self) -> str:
        """The run in a word: the last part of its folder."""
        return self.output_dir.name or str(self.output_dir)

    @property
    def newest(self) -> AttemptFacts:
        """The attempt that says how the run is."""
        return self.attempts[-1]
