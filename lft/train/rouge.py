"""ROUGE as an `evaluate` metric that needs no network: evaluate.load("rouge") asks the Hub at run time.

The scores are those of the reference implementation, rouge-score (Lin 2004, https://aclanthology.org/W04-1013), with stemming.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import datasets
import evaluate
from rouge_score.rouge_scorer import RougeScorer

from lft.core.parent import die_with
from lft.core.stop_signals import STOP_SIGNALS

NAMES = ("rouge1", "rouge2", "rougeL")
ALL_NAMES = (*NAMES, "rougeLsum")
"""rougeLsum takes each line for a sentence; of texts of one line it is rougeL."""
PART = 64
"""Pairs a process scores at a time."""
Scores = dict[str, list[float]]


class Rouge(evaluate.Metric):  # type: ignore[misc]  # evaluate has no types
    """F-measures between 0 and 1 of each prediction with its reference."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=__doc__ or "",
            citation="Lin 2004",
            inputs_description="predictions and references: lists of texts",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self,
        predictions: list[str],
        references: list[str],
        names: Sequence[str] = NAMES,
        processes: int = 1,
        between: Callable[[], None] = lambda: None,
    ) -> Scores:
        parts = [
            (tuple(names), predictions[start : start + PART], references[start : start + PART])
            for start in range(0, len(predictions), PART)
        ]
        scored = []
        for part in _in_processes(parts, min(processes, len(parts))):
            scored.append(part)
            between()
        return {name: [score for part in scored for score in part[name]] for name in names}


def rouge_scores(
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    names: Sequence[str] = NAMES,
    processes: int = 1,
    between: Callable[[], None] = lambda: None,
) -> Scores:
    """The scores of each pair, computed by so many processes; the same for any number of them.

    `between` is called after every 64 pairs, and may raise.
    """
    scores: Scores = Rouge(keep_in_memory=True).compute(
        predictions=list(predictions), references=list(references), names=names, processes=processes, between=between
    )
    return scores


def mean_scores(scores: Scores) -> dict[str, float]:
    """The mean of each score over the pairs."""
    return {name: sum(values) / len(values) for name, values in scores.items()}


Part = tuple[tuple[str, ...], list[str], list[str]]


def _in_processes(parts: list[Part], processes: int) -> Iterator[Scores]:
    if processes < 2:
        yield from map(_score, parts)
        return
    context = multiprocessing.get_context("fork")  # what is imported is there already; the work is Python alone
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_be_helper, initargs=(os.getpid(),)) as pool:
        try:
            yield from pool.map(_score, parts)
        finally:
            pool.shutdown(cancel_futures=True)  # where `between` has raised


def _be_helper(parent: int) -> None:
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    die_with(parent)


def _score(part: Part) -> Scores:
    names, predictions, references = part
    scorer = RougeScorer(list(names), use_stemmer=True)
    scores = [scorer.score(target, text) for target, text in zip(references, predictions, strict=True)]
    return {name: [float(score[name].fmeasure) for score in scores] for name in names}
