"""Numbers in sentences."""

from collections.abc import Iterable
from itertools import pairwise


def counted(count: int, noun: str) -> str:
    """`1 rank`, `2 ranks`; for nouns that take an s."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def clock(seconds: float) -> str:
    """`1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h`, `2 days`: no more digits than a reader needs."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def rank_names(ranks: Iterable[int]) -> str:
    """`rank 1`, `ranks 0-3`, `ranks 0, 4-5`."""
    numbers = sorted(ranks)
    starts = [number for before, number in pairwise([-2, *numbers]) if number != before + 1]
    ends = [number for number, after in pairwise([*numbers, numbers[-1] + 2]) if after != number + 1]
    spans = [str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
    return ("rank " if len(numbers) == 1 else "ranks ") + ", ".join(spans)
