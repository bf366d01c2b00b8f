"""ROUGE as an `evaluate` metric that needs no network: evaluate.load("rouge") asks the Hub at run time.

The scores are those of the reference implementation, rouge-score (Lin 2004, https://aclanthology.org/W04-1013), with stemming.
"""

from collections.abc import Sequence

import datasets
import evaluate
from rouge_score.rouge_scorer import RougeScorer

NAMES = ("rouge1", "rouge2", "rougeL")


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

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, list[float]]:
        scorer = RougeScorer(list(NAMES), use_stemmer=True)
        scores = [scorer.score(target, text) for target, text in zip(references, predictions, strict=True)]
        return {name: [float(score[name].fmeasure) for score in scores] for name in NAMES}


def rouge_scores(predictions: Sequence[str], references: Sequence[str]) -> dict[str, list[float]]:
    """rouge1, rouge2 and rougeL of each pair."""
    scores: dict[str, list[float]] = Rouge(keep_in_memory=True).compute(
        predictions=list(predictions), references=list(references)
    )
    return scores


def mean_scores(scores: dict[str, list[float]]) -> dict[str, float]:
    """The mean of each score over the pairs."""
    return {name: sum(values) / len(values) for name, values in scores.items()}
