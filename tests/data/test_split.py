"""The split into training and held-out rows."""

import random

import pytest
from datasets import Dataset

from lft.core.errors import DataError
from lft.data.split import split_held_out


def rows_of(count: int) -> list[dict[str, str]]:
    """Distinct rows."""
    return [{"text": f"row {number}"} for number in range(count)]


def held_texts(rows: list[dict[str, str]], held_out: float) -> set[str]:
    """The texts that end up on the held-out side; the other side holds the rest."""
    kept, held = split_held_out(Dataset.from_list(rows), ["text"], held_out)
    assert len(kept) + len(held) == len(rows)
    assert not set(kept["text"]) & set(held["text"])
    return set(held["text"])


@pytest.mark.parametrize("held_out", [0.1, 50])
def test_a_row_stays_on_its_side_when_rows_are_reordered(held_out: float) -> None:
    rows = rows_of(500)
    shuffled = random.Random(1).sample(rows, len(rows))
    assert held_texts(rows, held_out) == held_texts(shuffled, held_out)


def test_a_share_keeps_its_rows_when_others_are_added() -> None:
    before, after = held_texts(rows_of(500), 0.1), held_texts(rows_of(800), 0.1)
    assert before < after
    assert 30 < len(before) < 70


def test_a_number_holds_out_that_many_and_equal_rows_never_leak() -> None:
    assert len(held_texts(rows_of(300), 40)) == 40
    held_texts(rows_of(100) * 3, 0.2)
    held_texts(rows_of(100) * 3, 20)


def test_nothing_is_held_out_on_request_and_holding_out_everything_is_refused() -> None:
    assert held_texts(rows_of(10), 0) == set()
    with pytest.raises(DataError, match="leaves no row to train on"):
        split_held_out(Dataset.from_list(rows_of(3)), ["text"], 10)
