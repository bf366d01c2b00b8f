"""How fast a run goes, from the end of rank 0's events, which may be those of days."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from lft.core.events import Event, Kind
from lft.core.throughput import Speed, speed

WINDOW_SECONDS = 60.0
"""Speed is that of the newest steps over this time."""
BLOCK_BYTES = 2**16


class Pace(Speed):
    """What rank 0 last told of the stage it is in."""

    stage: str = ""
    step: int | None = None
    total: int | None = None
    loss: float | None = None
    memory_bytes: int | None = None
    """The most memory that rank 0 has held."""
    eta_seconds: float | None = None


def read_pace(path: Path, started: float) -> Pace:
    """The pace from an events file; `started`, in seconds since the epoch, is when the attempt did."""
    return pace_of(lines_backwards(path), started) if path.exists() else Pace()


def pace_of(newest_first: Iterable[bytes], started: float) -> Pace:
    """The pace from event lines, read backwards to the start of the stage, or of the attempt."""
    needed: set[Kind] = {"stage", "step", "log", "total"}
    steps: list[Event] = []
    facts: dict[str, float] = {}
    stage = ""
    for line in newest_first:
        # a stage may have 100,000 lines: only those that can matter are parsed
        if not any(_mark(kind) in line for kind in needed):
            continue
        event = parsed_event(line)
        if event is None:
            continue
        if event.time < started:
            break
        if event.kind == "stage":
            stage = event.data["name"]
            break
        if event.kind == "step":
            steps.append(event)
            if steps[0].time - event.time >= WINDOW_SECONDS:
                needed.discard("step")
        else:
            facts = event.data | facts
            needed.discard(event.kind)
    return _pace(stage, steps, facts)


def lines_backwards(path: Path) -> Iterator[bytes]:
    """The lines of a file, the last one first, read only as far as they are asked for."""
    with path.open("rb") as stream:
        position = stream.seek(0, 2)
        rest = b""
        while position:
            start = max(0, position - BLOCK_BYTES)
            stream.seek(start)
            rest, *lines = (stream.read(position - start) + rest).split(b"\n")
            position = start
            yield from reversed(lines)
        yield rest


def _pace(stage: str, steps: list[Event], facts: dict[str, float]) -> Pace:
    """`steps` are the newest first."""
    if not steps:
        return Pace(stage=stage, loss=facts.get("loss"))
    newest, oldest = steps[0], steps[-1]
    step, total = newest.data["step"], newest.data["total"]
    seconds = newest.time - oldest.time
    steps_per_second = (step - oldest.data["step"]) / seconds if seconds > 0 else 0.0
    how_fast = speed(newest.data, oldest.data, seconds, facts.get("peak_flops"))
    return Pace(
        **dict(how_fast),
        stage=stage,
        step=step,
        total=total,
        loss=facts.get("loss"),
        memory_bytes=newest.data.get("memory_bytes"),
        eta_seconds=(total - step) / steps_per_second if steps_per_second else None,
    )


def _mark(kind: Kind) -> bytes:
    """The bytes that every line of this kind holds, as EventWriter writes it."""
    return json.dumps({"kind": kind})[1:-1].encode()


def parsed_event(line: bytes) -> Event | None:
    """The event of a line; None for what a writer that was killed has left of one."""
    try:
        return Event(**json.loads(line))
    except (ValueError, TypeError):
        return None
