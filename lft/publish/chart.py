"""Charts as numbers: ticks, lines and dots in parts of the area they are drawn on, whatever draws them. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from math import ceil, floor, isfinite, log10

from lft.publish.history import Point

MOST_POINTS = 400
"""Points drawn of a line: about one a pixel."""
MANY_POINTS = 40
"""From then on a noisy line is easier to read with its moving average."""
MOST_DOTS = 30
STRETCH = 12
"""The moving average is over one in so many of the points, on either side alike, so that it lags behind nothing."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A number on an axis, and where: 0 at its low end, 1 at its high one."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Dot:
    """A measured point: where, in parts of the area from its lower left corner, and what it says."""

    x: float
    y: float
    words: str


@dataclass(frozen=True, slots=True)
class Line:
    """A measured line; it has several pieces where values between them are not finite."""

    name: str
    pieces: tuple[tuple[tuple[float, float], ...], ...]
    dots: tuple[Dot, ...]
    shows_dots: bool
    number: int
    """Which colour it has."""
    is_faint: bool = False
    """Drawn behind its moving average."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over steps."""

    title: str
    summary: str
    """What the chart shows, for those who do not see it."""
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Tick, ...]
    """Steps at which something happened."""
    note: str
    table: tuple[tuple[str, ...], ...]
    """The same in numbers, the names of the columns first."""

    @property
    def legend(self) -> tuple[Line, ...]:
        """The lines to name; none where there is one."""
        named = tuple(line for line in self.lines if not line.is_faint)
        return named if len(named) > 1 or len(self.lines) > len(named) else ()


def make_chart(
    title: str,
    measured: Sequence[tuple[str, Sequence[Point]]],
    *,
    last_step: int = 0,
    from_zero: bool = False,
    smooth: bool = False,
    marks: Sequence[Tick] = (),
    note: str = "",
) -> Chart | None:
    """A chart of one or several measured lines; None where nothing finite was measured.

    `smooth`: long lines are drawn with their moving average. `marks` are at steps.
    """
    named = [(number, name, list(points)) for number, (name, points) in enumerate(measured) if points]
    finite = [(x, y) for _, _, points in named for x, y in points if isfinite(y)]
    if not finite:
        return None
    x_high = max(last_step, 1, *(x for x, _ in finite))
    numbers = nice_numbers(*_span([y for _, y in finite], from_zero=from_zero))
    y_low, y_high = numbers[0], numbers[-1]
    lines: list[Line] = []
    for number, name, points in named:
        placed = [(x / x_high, (y - y_low) / (y_high - y_low), x, y) for x, y in points]
        is_many = smooth and len(placed) > MANY_POINTS
        lines.append(_line(name, placed, number, is_faint=is_many))
        if is_many:
            lines.append(_line(name, _smooth(placed), number))
    return Chart(
        title=title,
        summary=f"{title}: {'; '.join(_told(name, points) for _, name, points in named)}.",
        lines=tuple(lines),
        x_ticks=tuple(Tick(x / x_high, f"{x:,.0f}") for x in nice_numbers(0, x_high, 6) if x <= x_high and x == int(x)),
        y_ticks=tuple(
            Tick((y - y_low) / (y_high - y_low), label) for y, label in zip(numbers, labels(numbers), strict=True)
        ),
        marks=tuple(Tick(mark.at / x_high, mark.label) for mark in marks if mark.at <= x_high),
        note=note,
        table=_table(named),
    )


def nice_numbers(low: float, high: float, wanted: int = 5) -> list[float]:
    """About `wanted` multiples of 1, 2 or 5 times a power of ten, the first not above `low`, the last not below `high`."""
    high = high if high > low else low + (abs(low) or 1.0)
    rough = (high - low) / wanted
    power = 10.0 ** floor(log10(rough))
    each = next(size * power for size in (1, 2, 5, 10) if size * power >= rough * 0.999)
    return [round(each * count, 12) for count in range(floor(low / each + 1e-9), ceil(high / each - 1e-9) + 1)]


def labels(numbers: Sequence[float]) -> list[str]:
    """Ticks in words, all with as many digits as the step between them needs: 0.25, 0.50; 12,000; 2e-4."""
    largest = max(abs(number) for number in numbers)
    if 0 < largest < 0.01:
        return ["0" if number == 0 else f"{number:.1e}".replace("e-0", "e-").replace(".0e", "e") for number in numbers]
    each = numbers[1] - numbers[0] if len(numbers) > 1 else largest or 1.0
    digits = max(0, -floor(log10(each) + 1e-9))
    return [f"{number:,.{digits}f}" for number in numbers]


def few(points: Sequence[tuple[float, ...]], most: int) -> list[tuple[float, ...]]:
    """At most about `most` of the points: of each of as many stretches the lowest and the highest, so that peaks stay."""
    if len(points) <= most:
        return list(points)
    size = ceil(2 * len(points) / most)
    kept: list[tuple[float, ...]] = [points[0]]
    for start in range(1, len(points) - 1, size):
        stretch = points[start : min(start + size, len(points) - 1)]
        ends = {stretch.index(min(stretch, key=_height)), stretch.index(max(stretch, key=_height))}
        kept += [stretch[index] for index in sorted(ends)]
    return [*kept, points[-1]]


def _height(point: tuple[float, ...]) -> float:
    return point[1] if isfinite(point[1]) else 0.0


def _line(name: str, placed: Sequence[tuple[float, ...]], number: int, *, is_faint: bool = False) -> Line:
    drawn = few(placed, MOST_POINTS)
    pieces = [list(piece) for finite, piece in groupby(drawn, key=lambda point: isfinite(point[1])) if finite]
    return Line(
        name=name,
        pieces=tuple(tuple((x, y) for x, y, _, _ in piece) for piece in pieces),
        dots=tuple(
            Dot(x, y, f"{name}, step {step:,.0f}: {figure(value)}") for piece in pieces for x, y, step, value in piece
        ),
        shows_dots=len(drawn) <= MOST_DOTS,
        number=number,
        is_faint=is_faint,
    )


def _smooth(placed: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """The mean of each point and its neighbours, of fewer of them towards the ends."""
    finite = [point for point in placed if isfinite(point[1])]
    heights, values = ([0.0, *accumulate(point[each] for point in finite)] for each in (1, 3))
    reach, smooth = len(finite) // (2 * STRETCH), list[tuple[float, ...]]()
    for index, (x, _, step, _) in enumerate(finite):
        side = max(min(reach, index, len(finite) - 1 - index), reach // 4)
        first, last = max(index - side, 0), min(index + side + 1, len(finite))
        height, value = ((sums[last] - sums[first]) / (last - first) for sums in (heights, values))
        smooth.append((x, height, step, value))
    return smooth


def _span(values: Sequence[float], *, from_zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if from_zero:
        return min(0.0, low), max(high, 0.0)
    return (low, high) if high > low else (low - abs(low) / 10 - 1e-9, high + abs(high) / 10 + 1e-9)


def figure(value: float) -> str:
    """A measured number: four digits, or those before the point; three of a very small one."""
    if abs(value) < 0.001:
        return f"{value:.3g}"
    digits = next((digits for below, digits in ((10, 3), (100, 2), (1000, 1)) if abs(value) < below), 0)
    return f"{value:,.{digits}f}"


def _told(name: str, points: Sequence[Point]) -> str:
    finite = [point for point in points if isfinite(point[1])]
    if not finite:
        return f"{name} was never finite"
    (first, start), (last, end) = finite[0], finite[-1]
    lost = len(points) - len(finite)
    odd = f", and {lost} not finite" if lost else ""
    return f"{name} from {figure(start)} at step {first:,} to {figure(end)} at step {last:,}{odd}"


def _table(named: Iterable[tuple[int, str, Sequence[Point]]], most: int = 24) -> tuple[tuple[str, ...], ...]:
    """Some of the steps at which most was measured, with what was."""
    columns = [(name, dict(points)) for _, name, points in named]
    steps = sorted({step for _, found in columns for step in found})
    chosen = (
        [steps[round(index * (len(steps) - 1) / (most - 1))] for index in range(most)] if len(steps) > most else steps
    )
    rows = [(f"{step:,}", *(figure(found[step]) if step in found else "" for _, found in columns)) for step in chosen]
    return (("step", *(name for name, _ in columns)), *rows)
