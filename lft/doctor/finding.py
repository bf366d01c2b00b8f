"""What was found: one line, how bad it is, and what to type about it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Level = Literal["ok", "warn", "fail"]


class Finding(BaseModel):
    """One judged fact."""

    model_config = ConfigDict(frozen=True)

    name: str
    level: Level
    """`warn`: works, slower or not everywhere. `fail`: runs will fail, or not use what is there."""
    text: str
    fix: str = ""
    """What to type or change."""


def ok(name: str, text: str, fix: str = "") -> Finding:
    """As it should be; `fix` is then a possibility, no need."""
    return Finding(name=name, level="ok", text=text, fix=fix)


def warn(name: str, text: str, fix: str) -> Finding:
    """Runs work, but slower, or some of them do not."""
    return Finding(name=name, level="warn", text=text, fix=fix)


def fail(name: str, text: str, fix: str) -> Finding:
    """Runs fail."""
    return Finding(name=name, level="fail", text=text, fix=fix)
