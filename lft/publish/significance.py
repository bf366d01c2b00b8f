"""Whether tuned beats base by more than chance: the paired bootstrap (Koehn 2004, https://aclanthology.org/W04-3250)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of tuned minus base, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return not self.low <= 0 <= self.high

    def to_dict(self) -> dict[str, float | bool]:
        """For a report."""
        return {**asdict(self), "significant": self.is_significant}


def paired_difference(
    base: Sequence[float], tuned: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0
) -> Difference:
    """Weighted mean of tuned - base over items, with a percentile interval from resampling the items.

    base, tuned, weights: (items,). Without weights each item counts the same. The same input gives the same interval.
    """
    deltas = np.asarray(tuned, dtype=np.float64) - np.asarray(base, dtype=np.float64)
    weight = np.ones_like(deltas) if weights is None else np.asarray(weights, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    for index in range(RESAMPLES):  # one resample at a time: all at once would take RESAMPLES x items x 8 bytes
        chosen = generator.integers(0, len(deltas), len(deltas))
        means[index] = (deltas[chosen] * weight[chosen]).sum() / weight[chosen].sum()
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(float((deltas * weight).sum() / weight.sum()), float(low), float(high))
