"""The split into training and held-out rows, and weights."""

import numpy as np
import pytest
import xxhash

from lft.core.errors import DataError
from lft.data.split import Hashes, split, weighted


def hashes(texts: list[str]) -> Hashes:
    """As shards have them."""
    return np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in texts], np.uint64)


def held(texts: list[str], held_out: float) -> set[str]:
    """The texts on the held-out side; the other side holds the rest."""
    kept, out = split(hashes(texts), held_out)
    assert sorted([*kept, *out]) == list(range(len(texts)))
    assert not {texts[index] for index in kept} & {texts[index] for index in out}
    return {texts[index] for index in out}


def texts(count: int) -> list[str]:
    """Distinct rows."""
    return [f"row {number}" for number in range(count)]


@pytest.mark.parametrize("held_out", [0.1, 50])
def test_a_row_stays_on_its_side_when_rows_are_reordered(held_out: float) -> None:
    assert held(texts(500), held_out) == held(texts(500)[::-1], held_out)


def test_a_share_keeps_its_rows_when_others_are_added() -> None:
    before, after = held(texts(500), 0.1), held(texts(800), 0.1)
    assert before < after
    assert 30 < len(before) < 70


def test_a_number_holds_out_that_many_and_equal_rows_never_leak() -> None:
    assert len(held(texts(300), 40)) == 40
    held(texts(100) * 3, 0.2)
    held(texts(100) * 3, 20)


def test_nothing_is_held_out_on_request_and_holding_out_everything_is_refused() -> None:
    assert held(texts(10), 0) == set()
    assert held([], 0.1) == set()
    with pytest.raises(DataError, match="leaves no row to train on"):
        split(hashes(texts(3)), 10)


def test_a_weight_says_how_often_each_row_of_its_file_is_used() -> None:
    rows, files = np.arange(4000), np.repeat(np.array([0, 1, 2, 3], np.int32), 1000)
    content = hashes(texts(4000))
    used = np.bincount(files[weighted(rows, (1, 2, 0.25, 1.5), files, content)])
    assert used[:2].tolist() == [1000, 2000]
    assert abs(used[2] - 250) < 50
    assert abs(used[3] - 1500) < 50
    assert np.array_equal(weighted(rows, (1, 1, 1, 1), files, content), rows)


def test_a_fraction_picks_the_same_rows_wherever_they_stand_and_not_by_the_hash_of_the_split() -> None:
    names = texts(2000)
    files, content = np.zeros(2000, np.int32), hashes(names)
    picked = {names[index] for index in weighted(np.arange(2000), (0.5,), files, content)}
    again = {names[::-1][index] for index in weighted(np.arange(2000), (0.5,), files, content[::-1])}
    assert picked == again
    out = held(names, 0.5)
    assert 300 < len(picked & out) < 700
