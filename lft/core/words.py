"""Numbers in sentences."""

from collections.abc import Iterable


def counted(count: int, noun: str) -> str:
    """`1 rank`, `2 ranks`; for nouns that take an s."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def ranges(numbers: Iterable[int]) -> str:
    """`0-3, 7` for 0, 1, 2, 3, 7."""
    spans: list[list[int]] = []
    for number in sorted(set(numbers)):
        if spans and number == spans[-1][-1] + 1:
            spans[-1][1:] = [number]
        else:
            spans.append([number])
    return ", ".join("-".join(map(str, span)) for span in spans)


def rank_names(ranks: Iterable[int]) -> str:
    """`rank 1`, `ranks 0-3, 7`."""
    numbers = set(ranks)
    return ("rank " if len(numbers) == 1 else "ranks ") + ranges(numbers)


def clock(seconds: float) -> str:
    """`1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


INTERVAL = r"^[1-9]\d* ?(s|min|h)$"
"""A time as it is typed: 90s, 10min, 2 h."""


def interval_seconds(text: str) -> int:
    """The seconds of `10min`, or of another text like INTERVAL."""
    number = text.rstrip("sminh ")
    return int(number) * {"s": 1, "min": 60, "h": 3600}[text[len(number) :].strip()]


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h`, `2 days`: no more digits than a reader needs."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def rounded(number: int) -> str:
    """A count to three digits: `6.82 M`, `8.03 B`, `812 k`."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def about(number: float) -> str:
    """A number to three digits, in full: `12,500`, `745`, `8.3`."""
    if number < 10:
        return f"{number:.2g}"
    return f"{round(number, 3 - len(str(int(number)))):,.0f}"


def percent(part: float, whole: float) -> str:
    """`41 %`, `0.3 %`, `below 0.1 %`; nothing of nothing is `0 %`."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 0.1:
        return "below 0.1 %"
    return f"{share:.0f} %" if share >= 10 or share == round(share) else f"{share:.1f} %"


def data_size(size_bytes: float) -> str:
    """`512 bytes`, `3.4 MiB`, `12 GiB`: three digits at most."""
    for size, unit in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size_bytes >= size:
            number = size_bytes / size
            return f"{number:.0f} {unit}" if number >= 10 else f"{number:.1f} {unit}"
    return f"{size_bytes:.0f} bytes"
