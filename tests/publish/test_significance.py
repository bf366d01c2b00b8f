"""The interval of a difference, and whether it may be called one."""

import random

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from lft.publish import significance
from lft.publish.significance import Paired, interval, paired_difference, paired_differences, resamples


def scores(count: int, seed: int) -> list[float]:
    """Scores between 0 and 1."""
    generator = random.Random(seed)
    return [generator.random() for _ in range(count)]


def test_a_constant_gain_has_no_spread() -> None:
    base = [0.0, 0.25, 0.5]
    found = paired_difference(base, [score + 0.5 for score in base])
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5), abs=1e-15)


def test_the_mean_is_tuned_minus_base_and_lies_in_its_interval() -> None:
    found = paired_difference([0.2, 0.4, 0.6, 0.8], [0.3, 0.3, 0.9, 0.9])
    assert found.mean == pytest.approx(0.1)
    assert found.low < found.mean < found.high
    turned = paired_difference([0.3, 0.3, 0.9, 0.9], [0.2, 0.4, 0.6, 0.8])
    assert (turned.mean, turned.low, turned.high) == pytest.approx((-found.mean, -found.high, -found.low), abs=1e-9)


def test_the_interval_has_the_width_that_theory_gives() -> None:
    gains = scores(400, seed=1)
    found = paired_difference([0.0] * 400, gains)
    expected = 2 * 1.96 * (1 / 12 / 400) ** 0.5  # of a mean of 400 uniform numbers
    assert found.high - found.low == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("base", "tuned", "significant"),
    [
        ([0.5] * 9, [0.5] * 9, False),
        ([0.0] * 9, [0.1] * 9, True),
        ([0.1] * 9, [0.0] * 9, True),
        ([0.0, 0.5, 1.0], [0.9, 0.2, 0.6], False),
        ([0.0] * 5, [0.1] * 5, False),
        ([0.0] * 6, [0.1] * 6, True),
        ([0.3] * 9, [0.1 + 0.2] * 9, False),
        ([float("nan")] * 9, [0.2] * 9, False),
        (scores(100, seed=1), scores(100, seed=2), False),
    ],
)
def test_only_a_difference_whose_interval_leaves_out_zero_is_significant(
    base: list[float], tuned: list[float], significant: bool
) -> None:
    found = paired_difference(base, tuned)
    assert found.is_significant is significant
    assert found.to_dict() == {"mean": found.mean, "low": found.low, "high": found.high, "significant": significant}


def test_the_same_numbers_give_the_same_interval() -> None:
    base, tuned = scores(50, seed=1), scores(50, seed=2)
    assert paired_difference(base, tuned) == paired_difference(base, tuned)


def test_a_weight_counts_an_item_that_many_times() -> None:
    found = paired_difference([0.0, 0.0], [1.0, 0.0], [3.0, 1.0])
    assert found.mean == 0.75
    uneven = paired_difference([0.0] * 40, [1.0] + [0.0] * 39, [39.0] + [1.0] * 39)
    assert uneven.low < uneven.mean == 0.5 < uneven.high, "the interval counts weights as the mean does"
    equal = paired_difference([0.0] * 4, [1.0, 0.0, 0.5, 0.2], [7.0] * 4)
    plain = paired_difference([0.0] * 4, [1.0, 0.0, 0.5, 0.2])
    assert (equal.mean, equal.low, equal.high) == pytest.approx((plain.mean, plain.low, plain.high))


def test_the_intervals_of_losses_and_perplexities_are_those_of_scipy() -> None:
    generator = np.random.default_rng(3)
    tokens = generator.integers(5, 200, 150).astype(float)
    base = generator.gamma(4.0, 0.5, 150)
    tuned = base - generator.normal(0.2, 0.3, 150)
    measured = {
        "loss": Paired(base.tolist(), tuned.tolist(), tokens.tolist()),
        "perplexity": Paired(base.tolist(), tuned.tolist(), tokens.tolist(), of=np.exp),
        "rouge1": Paired(base.tolist(), tuned.tolist()),
    }

    def mean(values: NDArray[np.float64], weights: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return np.asarray((values * weights).sum(axis=axis) / weights.sum(axis=axis))

    def loss(
        one: NDArray[np.float64], two: NDArray[np.float64], weights: NDArray[np.float64], axis: int = -1
    ) -> object:
        return mean(two, weights, axis) - mean(one, weights, axis)

    def perplexity(
        one: NDArray[np.float64], two: NDArray[np.float64], weights: NDArray[np.float64], axis: int = -1
    ) -> object:
        return np.exp(mean(two, weights, axis)) - np.exp(mean(one, weights, axis))

    found = paired_differences(measured)
    for name, statistic, weights in (
        ("loss", loss, tokens),
        ("perplexity", perplexity, tokens),
        ("rouge1", loss, np.ones(150)),
    ):
        expected = stats.bootstrap(
            (base, tuned, weights),
            statistic,
            paired=True,
            vectorized=True,
            method="percentile",
            n_resamples=20_000,
            rng=np.random.default_rng(8),
        ).confidence_interval
        width = expected.high - expected.low
        assert found[name].low == pytest.approx(expected.low, abs=0.03 * width), name
        assert found[name].high == pytest.approx(expected.high, abs=0.03 * width), name
        assert found[name].mean == pytest.approx(float(statistic(base, tuned, weights)))  # type: ignore[arg-type]


def test_the_interval_of_a_perplexity_is_not_the_exponential_of_the_loss_s() -> None:
    base, tuned = [3.0 + score for score in scores(80, 1)], [2.5 + score for score in scores(80, 2)]
    found = paired_differences({"loss": Paired(base, tuned), "perplexity": Paired(base, tuned, of=np.exp)})
    assert found["perplexity"].high < 0
    assert found["perplexity"].low < -1 < np.exp(found["loss"].low)


def test_how_many_items_are_drawn_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    base, tuned = scores(50, seed=1), scores(50, seed=2)
    before = paired_difference(base, tuned)
    monkeypatch.setattr(significance, "CHUNK_ITEMS", 1_000)
    assert paired_difference(base, tuned) == before


def test_scores_that_are_no_means_have_an_interval_too() -> None:
    base, tuned = scores(100, seed=1), scores(100, seed=2)
    found = paired_difference(base, tuned)
    means = [sum(tuned[item] - base[item] for item in drawn) / 100 for drawn in resamples(100, 2_000)]
    assert interval(means) == pytest.approx((found.low, found.high), abs=0.15 * (found.high - found.low))
