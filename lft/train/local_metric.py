"""Metrics of the `evaluate` kind that a run file names by path: loaded, and computed for answers and references."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from lft.core.errors import PreflightError
from lft.core.local_metric import ROUGE, metric_problem, metric_script

CHANGE_IT = "mend the script, or leave it out of benchmark.metrics"


@dataclass(frozen=True, slots=True)
class Values:
    """What a metric returned: lists of one number an answer, and single numbers; anything else is left out."""

    each: dict[str, list[float]]
    whole: dict[str, float]


@dataclass(frozen=True, slots=True)
class LocalMetric:
    """One metric; `name` is that of its script."""

    name: str
    script: Path
    module: Any

    def compute(self, predictions: Sequence[str], references: Sequence[str]) -> Values:
        """Of all answers. Raises PreflightError where the script fails, or returns no number."""
        try:
            found = self.module.compute(predictions=list(predictions), references=list(references))
        except Exception as error:  # whatever somebody's script raises
            raise self._failed(error) from error
        values = _values(found, len(references))
        if not values.each and not values.whole:
            raise PreflightError(f"metric {self.script} returned no number", next_step=CHANGE_IT)
        return values

    def again(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        """The single numbers, of a resample: past `compute`, which writes a file each time."""
        try:
            return _values(self.module._compute(predictions=predictions, references=references), len(references)).whole
        except Exception as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> PreflightError:
        return PreflightError(f"metric {self.script} failed: {type(error).__name__}: {error}", next_step=CHANGE_IT)


def load_metrics(names: Sequence[str]) -> list[LocalMetric]:
    """All but rouge. Raises PreflightError for one that cannot be loaded."""
    return [_load(metric_script(name)) for name in names if name != ROUGE]


def _load(script: Path) -> LocalMetric:
    problem = metric_problem(str(script))
    if problem:
        raise PreflightError(f"metric {problem}", next_step=CHANGE_IT)
    import evaluate  # a second of imports that runs without such a metric do not need

    try:
        module = evaluate.load(str(script), keep_in_memory=True)
    except Exception as error:  # whatever somebody's script raises
        words = f"metric {script} cannot be loaded: {type(error).__name__}: {error}"
        raise PreflightError(words, next_step=CHANGE_IT) from error
    return LocalMetric(script.stem, script, module)


def _values(found: object, items: int) -> Values:
    given = found if isinstance(found, Mapping) else {}
    each = {str(name): list(map(float, value)) for name, value in given.items() if _is_list(value, items)}
    return Values(each, {str(name): float(value) for name, value in given.items() if _is_number(value)})


def _is_number(value: object) -> bool:
    return isinstance(value, Real | np.number | np.bool_) and math.isfinite(float(value))


def _is_list(value: object, items: int) -> bool:
    return isinstance(value, list | tuple | np.ndarray) and len(value) == items and all(map(_is_number, value))
