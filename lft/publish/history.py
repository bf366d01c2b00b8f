"""A run's course from rank 0's events: losses, learning rate and speed by step, over all its attempts."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

Point = tuple[int, float]
"""A step, and what was measured there."""
SPEED_POINTS = 100
"""Speeds told of a run at most; each is the mean between two steps."""


@dataclass(slots=True)
class History:
    """What an uninterrupted run would have told: steps made again after an interruption count once, the last time."""

    losses: list[Point] = field(default_factory=list)
    learning_rates: list[Point] = field(default_factory=list)
    held_out_losses: list[Point] = field(default_factory=list)
    speeds: list[Point] = field(default_factory=list)
    """Tokens of rows a second over all ranks, with the time for held-out losses and checkpoints."""
    resumed_at: list[int] = field(default_factory=list)
    """The steps from which later attempts went on."""
    step: int = 0
    total: int | None = None
    seconds: float = 0.0
    """Spent training, over all attempts."""
    warnings: list[str] = field(default_factory=list)


def read_history(path: Path, began: float = 0.0) -> History:
    """From an events file; what was written before `began`, in seconds since the epoch, belongs to another run."""
    try:
        with path.open("rb") as lines:
            return history_of(event for event in _parsed(lines) if event["time"] >= began)
    except OSError:
        return History()


def history_of(events: Iterable[dict[str, Any]]) -> History:
    """From the events of rank 0, in their order."""
    history = History()
    steps: list[dict[str, Any]] = []
    is_beginning = False
    for event in events:
        kind, data = event["kind"], event["data"]
        if kind == "total":
            _close(history, steps)
            steps, is_beginning, history.total = [], True, data["steps"]
        elif kind == "step" and "seconds" in data:
            if is_beginning:
                _go_on_from(history, data["step"])
                is_beginning = False
            steps.append(data)
            history.step = data["step"]
        elif kind == "log":
            history.losses.append((data["step"], data["loss"]))
            history.learning_rates.append((data["step"], data["learning_rate"]))
        elif kind == "evaluated":
            history.held_out_losses.append((data["step"], data["held_out_loss"]))
        elif kind == "warning" and data["line"] not in history.warnings:
            history.warnings.append(data["line"])
    _close(history, steps)
    return history


def _go_on_from(history: History, step: int) -> None:
    """Forget what the attempts before have made beyond this step."""
    if step == 0:
        history.resumed_at = []
    elif history.step:
        history.resumed_at = [each for each in history.resumed_at if each < step] + [step]
    for points in (history.losses, history.learning_rates, history.held_out_losses, history.speeds):
        points[:] = [point for point in points if point[0] <= step]


def _close(history: History, steps: list[dict[str, Any]]) -> None:
    """Add the seconds and the speeds of an attempt, whose step events count since it began."""
    if not steps:
        return
    history.seconds += steps[-1]["seconds"]
    each = max(1, len(steps) // SPEED_POINTS)
    chosen = steps[::each] if steps[::each][-1] is steps[-1] else [*steps[::each], steps[-1]]
    for before, after in pairwise(chosen):
        seconds = after["seconds"] - before["seconds"]
        if seconds > 0 and after["step"] > before["step"]:
            history.speeds.append((after["step"], (after["tokens"] - before["tokens"]) / seconds))


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The events of whole lines; a writer that was killed may leave half of one."""
    for line in lines:
        try:
            event = json.loads(line)
            yield {"kind": event["kind"], "data": event["data"], "time": float(event["time"])}
        except (ValueError, KeyError, TypeError):
            continue
