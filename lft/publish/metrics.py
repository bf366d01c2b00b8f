"""What the benchmark's metrics are called and how they are read, for every table, picture and card that shows them."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of report.json's benchmark."""

    label: str
    lower_is_better: bool = False


METRICS = {
    "loss": Metric("held-out loss", lower_is_better=True),
    "perplexity": Metric("perplexity", lower_is_better=True),
    "rouge1": Metric("ROUGE-1"),
    "rouge2": Metric("ROUGE-2"),
    "rougeL": Metric("ROUGE-L"),
    "rougeLsum": Metric("ROUGE-Lsum"),
    "exact_match": Metric("exact match"),
}
"""The built-in ones by their names in report.json, in the order they are shown in."""


def metric(name: str) -> Metric:
    """How a metric is called and read; one that a run file names itself is called by its name, higher being better."""
    return METRICS.get(name, Metric(name))


def shown_metrics(benchmark: dict[str, Any]) -> list[str]:
    """The names of the metrics of a report's benchmark, in the order they are shown in."""
    measured = benchmark["difference"]
    return [name for name in METRICS if name in measured] + sorted(measured.keys() - METRICS.keys())


def verdict(name: str, difference: dict[str, Any]) -> str:
    """In words what the difference of a metric, tuned minus base, means: better, worse or no significant change."""
    if not difference["significant"]:
        return "no significant change"
    return "better" if (difference["mean"] < 0) == metric(name).lower_is_better else "worse"
