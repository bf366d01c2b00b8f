"""The interval of a difference, and whether it may be called one."""

import random

import pytest

from lft.publish.significance import Difference, paired_difference


def scores(count: int, seed: int) -> list[float]:
    """Scores between 0 and 1."""
    generator = random.Random(seed)
    return [generator.random() for _ in range(count)]


def test_a_constant_gain_has_no_spread() -> None:
    base = [0.0, 0.25, 0.5]
    assert paired_difference(base, [score + 0.5 for score in base]) == Difference(0.5, 0.5, 0.5)


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
