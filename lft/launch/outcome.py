"""How an attempt ended, as its launcher writes it down."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lft.core.files import write_text
from lft.core.order import WorkerReport


class FailureRecord(BaseModel):
    """The failure of a job: the report of the rank that caused it, and all ranks that failed with the same message."""

    model_config = ConfigDict(frozen=True)

    report: WorkerReport
    ranks: tuple[int, ...]
    stopped: int = 0
    """How many other ranks were stopped because of it."""
    log_tail: str = ""


class Outcome(BaseModel):
    """The end of an attempt."""

    model_config = ConfigDict(frozen=True)

    exit_code: int
    failure: FailureRecord | None = None
    stopped: str = ""
    """What a stop left behind, in words."""
    uploaded: str = ""
    problems: tuple[str, ...] = ()
    """What came after training and can be done again."""
    next_step: str = ""
    ended_ns: int = 0

    def save(self, path: Path) -> None:
        """Write the outcome as JSON."""
        write_text(path, self.model_dump_json(indent=1))

    @classmethod
    def load(cls, path: Path) -> "Outcome":
        """Read an outcome. Raises OSError or pydantic.ValidationError."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))
