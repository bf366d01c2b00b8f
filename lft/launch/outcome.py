"""How an attempt ended, as it is kept in the run directory for those who ask later."""

import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lft.core.files import write_text
from lft.core.order import WorkerReport
from lft.core.words import rank_names
from lft.publish.report import Report


class Failure(BaseModel):
    """The failure of a job: the report of the rank that caused it, and all ranks that failed with the same error."""

    model_config = ConfigDict(frozen=True)

    report: WorkerReport
    ranks: tuple[int, ...]
    stopped: int
    """How many other ranks were stopped because of it."""
    log_tail: str = ""

    def who(self) -> str:
        """`rank 1` or `ranks 0-3`."""
        return rank_names(self.ranks)


class Outcome(BaseModel):
    """How a run ended. `report` is there when it trained; `problems` are what is to be done again."""

    model_config = ConfigDict(frozen=True)

    exit_code: int
    failure: Failure | None = None
    stopped: str = ""
    """What a stop left behind, in words."""
    took: str = ""
    """How long the stop took: `1.8 s after SIGTERM`."""
    uploaded: str = ""
    upload_problem: str = ""
    problems: tuple[str, ...] = ()
    next_step: str = ""
    """What to type next."""
    ended_ns: int = Field(default_factory=time.time_ns)
    report: Report | None = Field(default=None, exclude=True)

    @property
    def all_problems(self) -> tuple[str, ...]:
        """Those of the upload with the others."""
        return (*self.problems, *filter(None, (self.upload_problem,)))

    def save(self, path: Path) -> None:
        """Write it as JSON; the report has a file of its own."""
        write_text(path, self.model_dump_json(indent=1))

    @classmethod
    def load(cls, path: Path) -> "Outcome | None":
        """Read it; None where there is none."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None
