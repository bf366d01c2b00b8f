"""Scores of base and tuned model from their answers, each difference with its interval."""

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np

from lft.core.local_metric import ROUGE
from lft.publish.metrics import METRICS
from lft.publish.significance import Difference, Paired, interval, paired_differences, resamples
from lft.train.answers import MODELS, Line, Model
from lft.train.local_metric import LocalMetric
from lft.train.rouge import ALL_NAMES, rouge_scores

SHORT_WORDS = 5
"""Exact match is measured where at least half of the expected answers have at most so many words."""
METRIC_RESAMPLES = 1_000
"""Of a metric that gives one number for all answers: it is computed anew for each."""
QUOTES, ENDS = "\"'`\u201c\u201d\u2018\u2019 ", ".,;:!? "
Texts = list[str]


def score(
    references: Texts,
    lines: dict[Model, list[Line]],
    metrics: Sequence[str],
    local: Sequence[LocalMetric],
    *,
    processes: int = 1,
    between: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """base, tuned and difference, each by the names of the metrics; `metrics` are those of the settings.

    Loss is the mean over trained tokens, perplexity its exponential: each resample's own, since the exponentials of an
    interval's ends are not the ends of the perplexities' interval. `between` is called now and then, and may raise.
    """
    answers = {model: [str(line["answer"]) for line in lines[model]] for model in MODELS}
    measured = _losses(lines)
    if ROUGE in metrics:
        both = answers["base"] + answers["tuned"]
        rouge = rouge_scores(both, references * 2, names=ALL_NAMES, processes=processes, between=between)
        half = len(references)
        measured |= {name: Paired(values[:half], values[half:]) for name, values in rouge.items()}
    between()
    if median(len(reference.split()) for reference in references) <= SHORT_WORDS:
        same = {model: list(map(_is_same, answers[model], references)) for model in MODELS}
        measured["exact_match"] = Paired(same["base"], same["tuned"])
    whole: dict[str, tuple[float, float, Difference]] = {}
    for metric in local:
        each, numbers = _measure(metric, answers, references, between)
        measured |= {_free(name, metric, measured): paired for name, paired in each.items()}
        whole |= {_free(name, metric, measured | whole): found for name, found in numbers.items()}
    differences = paired_differences(measured)
    scores = {name: (*paired.scores(), differences[name]) for name, paired in measured.items()} | whole
    return {
        "base": {name: base for name, (base, _, _) in scores.items()},
        "tuned": {name: tuned for name, (_, tuned, _) in scores.items()},
        "difference": {name: difference.to_dict() for name, (_, _, difference) in scores.items()},
    }


def _losses(lines: dict[Model, list[Line]]) -> dict[str, Paired]:
    tokens = [float(line["tokens"]) for line in lines["base"]]
    base, tuned = ([line["loss"] / max(line["tokens"], 1) for line in lines[model]] for model in MODELS)
    return {"loss": Paired(base, tuned, tokens), "perplexity": Paired(base, tuned, tokens, of=np.exp)}


def _is_same(answer: str, reference: str) -> float:
    return float(_plain(answer) == _plain(reference))


def _plain(text: str) -> str:
    """In lower case, white space as one blank, without quotes around it and a sentence's end behind it.

    Signs stay ("-5", "C++", "50 %"), articles too ("A"): they may be the answer.
    """
    words = " ".join(text.split()).casefold()
    return words.strip(QUOTES).rstrip(ENDS).strip(QUOTES).strip() or words


def _measure(
    metric: LocalMetric, answers: dict[Model, Texts], references: Texts, between: Callable[[], None]
) -> tuple[dict[str, Paired], dict[str, tuple[float, float, Difference]]]:
    """What a metric gives for each answer; and what it gives for all together, with the interval of the difference."""
    base, tuned = (metric.compute(answers[model], references) for model in MODELS)
    each = {name: Paired(base.each[name], tuned.each[name]) for name in base.each.keys() & tuned.each.keys()}
    names = sorted(base.whole.keys() & tuned.whole.keys())
    if not names:
        return each, {}
    found: list[dict[str, float]] = []
    for drawn in resamples(len(references), METRIC_RESAMPLES):
        between()
        expected = [references[number] for number in drawn]
        now = [metric.again([answers[model][number] for number in drawn], expected) for model in MODELS]
        found.append({name: now[1][name] - now[0][name] for name in names if name in now[0] and name in now[1]})
    resampled = {name: [difference[name] for difference in found if name in difference] for name in names}
    ends = {name: interval(values) if values else (math.nan, math.nan) for name, values in resampled.items()}
    return each, {
        name: (
            base.whole[name],
            tuned.whole[name],
            Difference(tuned.whole[name] - base.whole[name], *ends[name], len(references)),
        )
        for name in names
    }


def _free(name: str, metric: LocalMetric, taken: dict[str, Any]) -> str:
    """The metric's own name for its score, with that of its script before it where another has the name."""
    return f"{metric.name}.{name}" if name in taken or name in METRICS else name
