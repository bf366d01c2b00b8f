"""Several runs side by side: what they did differently, and what came of it. Pure."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lft.core.words import about, clock
from lft.publish.chart import Chart, figure, make_chart
from lft.publish.metrics import metric, shown_metrics
from lft.publish.page_parts import HEADLINE, change_words, typed
from lft.publish.run_facts import RunFacts
from lft.publish.scores import ScoreGroup, compared_scores

SAME_QUESTIONS = (
    "model.name",
    "model.revision",
    "benchmark.num_prompts",
    "benchmark.max_new_tokens",
    "data.source",
    "data.config",
    "data.split",
    "data.revision",
    "data.data_files",
    "data.num_samples",
    "data.held_out",
    "data.max_length",
    "data.text_columns",
    "data.prompt_template",
    "data.chat_template",
)
"""Settings that must be alike for scores of two runs to be compared."""
OWN = ("output_dir", "upload.repo_name")
"""What differs between any two runs."""
Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the page and the terminal show."""

    runs: tuple[RunFacts, ...]
    names: tuple[str, ...]
    """Of the runs, all different."""
    heads: Row
    results: tuple[Row, ...]
    """A row a run, under the heads."""
    differences: tuple[Row, ...]
    """A row a setting that differs: its name, and each run's value."""
    charts: tuple[Chart, ...]
    scores: tuple[ScoreGroup, ...]
    caution: str
    """Why the scores should not be compared; nothing where they can be."""


def compare(runs: Sequence[RunFacts]) -> Comparison:
    """Of two runs or more."""
    names = _names(runs)
    differences = _differences(runs)
    questions = [row[0] for row in differences if row[0] in SAME_QUESTIONS]
    benchmarks = [
        (name, run.report["benchmark"]) for name, run in zip(names, runs, strict=True) if run.report["benchmark"]
    ]
    heads, results = _results(runs, names)
    return Comparison(
        runs=tuple(runs),
        names=names,
        heads=heads,
        results=results,
        differences=differences,
        charts=_charts(runs, names),
        scores=tuple(compared_scores(benchmarks)),
        caution=f"these runs differ in {', '.join(questions)}: their scores answer different questions"
        if questions and len(benchmarks) > 1
        else "",
    )


def _names(runs: Sequence[RunFacts]) -> tuple[str, ...]:
    """The last parts of their folders, as many as tell them apart."""
    short = [run.name for run in runs]
    if len(set(short)) == len(runs):
        return tuple(short)
    paths = [str(run.output_dir) for run in runs]
    common = os.path.commonpath(paths)
    return tuple(os.path.relpath(path, common) for path in paths)


def _differences(runs: Sequence[RunFacts]) -> tuple[Row, ...]:
    settings = [run.settings.by_name() for run in runs]
    found = []
    for key in settings[0]:
        values = [each[key] for each in settings]
        if key not in OWN and any(value != values[0] for value in values):
            found.append((key, *(typed(tuple(value) if isinstance(value, list) else value) for value in values)))
    layouts = [
        (choice.name, choice.value) for run in runs for choice in run.choices if choice.name in ("ranks", "strategy")
    ]
    for name in dict.fromkeys(name for name, _ in layouts):
        chosen = [next((choice.value for choice in run.choices if choice.name == name), "") for run in runs]
        if len(set(chosen)) > 1:
            found.append((f"{name} (planned)", *chosen))
    return tuple(found)


def _results(runs: Sequence[RunFacts], names: Sequence[str]) -> tuple[Row, tuple[Row, ...]]:
    measured = [name for run in runs if run.report["benchmark"] for name in shown_metrics(run.report["benchmark"])]
    metrics = [name for name in HEADLINE if name in measured]
    heads = ("run", "state", "steps", "training loss", *(metric(name).label for name in metrics))
    rows = []
    for name, run in zip(names, runs, strict=True):
        history, training = run.history, run.report["training"] or {}
        speed, peaks = training.get("tokens_per_second"), training.get("peak_memory_bytes_by_rank")
        rows.append(
            (
                name,
                run.newest.state,
                f"{training.get('steps', history.step):,}",
                figure(history.losses[-1][1]) if history.losses else "",
                *(_score(run.report["benchmark"], each) for each in metrics),
                clock(history.seconds) if history.seconds else "",
                about(speed) if speed else "",
                f"{max(peaks) / 1e9:.1f} GB" if peaks else "",
            )
        )
    return (*heads, "time", "tokens/s", "memory"), tuple(rows)


def _score(benchmark: dict[str, Any] | None, name: str) -> str:
    return change_words(benchmark, name) if benchmark and name in benchmark["difference"] else ""


def _charts(runs: Sequence[RunFacts], names: Sequence[str]) -> tuple[Chart, ...]:
    """The same curve of all runs."""
    kinds = (
        ("Training loss", [run.history.losses for run in runs], False),
        ("Held-out loss", [run.history.held_out_losses for run in runs], False),
        ("Tokens a second", [run.history.speeds for run in runs], True),
    )
    charts = [
        make_chart(title, list(zip(names, curves, strict=True)), from_zero=from_zero, smooth=not from_zero)
        for title, curves, from_zero in kinds
    ]
    return tuple(chart for chart in charts if chart)
