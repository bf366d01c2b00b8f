"""Whether tuned beats base by more than chance: the paired bootstrap (Koehn 2004, https://aclanthology.org/W04-3250)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
FEWEST_ITEMS = 6
"""All of 5 items better is chance one time in 16 (sign test, two-sided), whatever the bootstrap of so few says."""
SMALLEST = 1e-12
"""Differences below are rounding."""
CHUNK_ITEMS = 2**21
"""Items drawn at a time, all resamples together: 40 MB, however many items there are."""
Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """Tuned minus base, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float
    items: int
    """Of so many items."""

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out zero, and there are enough items for that to mean something."""
        return self.items >= FEWEST_ITEMS and (self.low > 0 or self.high < 0)

    def to_dict(self) -> dict[str, float | bool]:
        """For a report."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "significant": self.is_significant}


@dataclass(frozen=True, slots=True)
class Paired:
    """What was measured on the same items with both models: base, tuned, weights (items,); no weights: all the same.

    A model's score is `of` its weighted mean, for example the exponential, which makes perplexity of loss.
    """

    base: Sequence[float]
    tuned: Sequence[float]
    weights: Sequence[float] | None = None
    of: Callable[[Any], Any] = lambda mean: mean

    def scores(self) -> tuple[float, float]:
        """The scores of base and tuned model."""
        base, tuned = self._of_sums(self.columns().sum(axis=0))
        return float(base), float(tuned)

    def columns(self) -> Numbers:
        """(items, 3): weighted base, weighted tuned, weights."""
        base, tuned = np.asarray(self.base, dtype=np.float64), np.asarray(self.tuned, dtype=np.float64)
        weights = np.ones_like(base) if self.weights is None else np.asarray(self.weights, dtype=np.float64)
        return np.stack([base * weights, tuned * weights, weights], axis=1)

    def differences(self, sums: Numbers) -> Numbers:
        """Tuned minus base of sums of the columns (resamples, 3)."""
        base, tuned = self._of_sums(sums)
        found = np.asarray(tuned - base)
        return np.where(np.abs(found) < SMALLEST, 0.0, found)

    def _of_sums(self, sums: Numbers) -> tuple[Numbers, Numbers]:
        weights = np.maximum(sums[..., 2], np.finfo(np.float64).tiny)
        return self.of(sums[..., 0] / weights), self.of(sums[..., 1] / weights)


def paired_differences(measured: Mapping[str, Paired], *, seed: int = 0) -> dict[str, Difference]:
    """The difference of each measure, with a percentile interval from resampling the items, the same for all measures.

    All measures are of the same items, at least one. The same input gives the same intervals, on any number of cores.
    """
    columns = np.concatenate([each.columns() for each in measured.values()], axis=1)
    sums = np.concatenate([_sums(counts, columns) for counts in _draws(len(columns), seed)])
    found = {}
    for number, (name, each) in enumerate(measured.items()):
        mean = each.differences(each.columns().sum(axis=0))
        low, high = np.percentile(each.differences(sums[:, 3 * number : 3 * number + 3]), [2.5, 97.5])
        found[name] = Difference(float(mean), float(low), float(high), len(columns))
    return found


def paired_difference(
    base: Sequence[float], tuned: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0
) -> Difference:
    """`paired_differences` of one measure."""
    return paired_differences({"": Paired(base, tuned, weights)}, seed=seed)[""]


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """The ends of the 95 % interval of what was found in the resamples."""
    low, high = np.percentile(np.asarray(differences, dtype=np.float64), [2.5, 97.5])
    return float(low), float(high)


def resamples(items: int, count: int, *, seed: int = 0) -> Iterator[list[int]]:
    """`count` times the numbers of as many items, drawn with replacement: for scores that are no means."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield generator.integers(0, items, items).tolist()


def _draws(items: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each item is drawn in each of RESAMPLES resamples, some resamples (rows) at a time."""
    generator = np.random.default_rng(seed)
    most = max(1, CHUNK_ITEMS // items)
    for start in range(0, RESAMPLES, most):
        rows = min(most, RESAMPLES - start)
        drawn = generator.integers(0, items, (rows, items)) + items * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * items).reshape(rows, items)


def _sums(counts: NDArray[np.int64], columns: Numbers) -> Numbers:
    """(resamples, columns). einsum adds up in one order; a matrix product may in another with more threads."""
    sums: Numbers = np.einsum("ri,ic->rc", counts.astype(np.float64), columns, optimize=False)
    return sums
