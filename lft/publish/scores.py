"""The benchmark's scores with their intervals, as rows of a forest plot. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from lft.publish.chart import Tick, figure, labels, nice_numbers
from lft.publish.metrics import metric, shown_metrics, verdict

MINUS = "\u2212"


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference and its interval, in parts of the width."""

    low: float
    mean: float
    high: float


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One metric of one run."""

    label: str
    base: str
    tuned: str
    change: str
    between: str
    """The 95 % interval of the change in words."""
    verdict: str
    interval: Interval | None
    """None where it is not finite."""


@dataclass(frozen=True, slots=True)
class ScoreGroup:
    """Rows that share a scale."""

    name: str
    hint: str
    """Which way is better."""
    rows: tuple[ScoreRow, ...]
    ticks: tuple[Tick, ...]
    zero: float
    """Where no change is."""


def score_groups(benchmark: dict[str, Any]) -> list[ScoreGroup]:
    """All metrics of a run; those from 0 to 1 share a scale, any other has its own."""
    shares, others = list[str](), list[str]()
    for name in shown_metrics(benchmark):
        (shares if _is_share(benchmark, name) else others).append(name)
    sets = ([shares] if shares else []) + [[name] for name in others]
    return [_group([(metric(name).label, name, benchmark) for name in names], "") for names in sets]


def compared_scores(runs: Sequence[tuple[str, dict[str, Any]]]) -> list[ScoreGroup]:
    """Every metric that any of several named runs has: the runs on one scale."""
    names = [name for _, benchmark in runs for name in shown_metrics(benchmark)]
    return [
        _group([(run, name, each) for run, each in runs if name in each["difference"]], metric(name).label)
        for name in dict.fromkeys(names)
    ]


def signed(value: float, beside: float = 0.0) -> str:
    """`+0.129`, or with a true minus; a very small one with three digits behind the point where `beside` it has them."""
    size = f"{abs(value):.3f}" if abs(value) < 0.001 <= abs(beside) else figure(abs(value))
    return ("+" if value >= 0 else MINUS) + size


def _is_share(benchmark: dict[str, Any], name: str) -> bool:
    values = (benchmark["base"][name], benchmark["tuned"][name])
    return not metric(name).lower_is_better and all(0 <= value <= 1 for value in values)


def _group(scores: Sequence[tuple[str, str, dict[str, Any]]], name: str) -> ScoreGroup:
    """Of label, metric and benchmark of each row."""
    changes = [benchmark["difference"][each] for _, each, benchmark in scores]
    ends = [end for change in changes if _is_finite(change) for end in (change["low"], change["high"])]
    numbers = nice_numbers(min([0.0, *ends]), max([0.0, *ends]), 4)
    low, width = numbers[0], numbers[-1] - numbers[0]
    rows = []
    for (label, each, benchmark), change in zip(scores, changes, strict=True):
        at = {key: (change[key] - low) / width for key in ("low", "mean", "high")} if _is_finite(change) else None
        rows.append(
            ScoreRow(
                label=label,
                base=figure(benchmark["base"][each]),
                tuned=figure(benchmark["tuned"][each]),
                change=signed(change["mean"]),
                between=" to ".join(signed(change[end], change["mean"]) for end in ("low", "high")),
                verdict=verdict(each, change),
                interval=Interval(**at) if at else None,
            )
        )
    words = [label.replace("-", MINUS) for label in labels(numbers)]
    return ScoreGroup(
        name=name,
        hint="lower is better" if metric(scores[0][1]).lower_is_better else "higher is better",
        rows=tuple(rows),
        ticks=tuple(Tick((number - low) / width, word) for number, word in zip(numbers, words, strict=True)),
        zero=-low / width,
    )


def _is_finite(change: dict[str, Any]) -> bool:
    return all(isfinite(change[key]) for key in ("low", "mean", "high"))
