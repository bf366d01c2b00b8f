"""Packing: every row once, no pack too long, and as full as best-fit decreasing makes them."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lft.core.errors import DataError
from lft.data.packing import PackedRows, pack
from lft.data.token_rows import TokenRows

SIZES = st.integers(1, 70)


def best_fit_decreasing(lengths: list[int], size: int) -> int:
    """The number of packs, found one row at a time."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - length)
        else:
            rooms.append(size - length)
    return len(rooms)


@settings(max_examples=300, deadline=None)
@given(st.data(), SIZES, st.integers(0, 2**32 - 1))
def test_every_row_is_in_one_pack_no_pack_is_too_long_and_there_are_as_many_as_of_best_fit_decreasing(
    data: st.DataObject, size: int, seed: int
) -> None:
    lengths = data.draw(st.lists(st.integers(1, size), max_size=120))
    packs = pack(np.array(lengths, dtype=np.int32), size, seed)
    assert sorted(packs.rows.tolist()) == list(range(len(lengths)))
    held = [sum(lengths[row] for row in packs[number]) for number in range(len(packs))]
    assert packs.lengths.tolist() == held
    assert all(0 < tokens <= size for tokens in held)
    assert len(packs) == best_fit_decreasing(lengths, size)
    assert packs.fill == pytest.approx(sum(lengths) / (max(len(packs), 1) * size))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 300), st.integers(2, 200), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_packs_are_at_most_eleven_ninths_of_the_fewest_possible_and_four(
    fewest: int, size: int, pieces: int, seed: int
) -> None:
    """Full packs, each cut into pieces, so that the best possible is known."""
    generator = np.random.default_rng(seed)
    cuts = np.sort(generator.integers(0, size + 1, (fewest, pieces - 1)), axis=1)
    bounds = np.concatenate([np.zeros((fewest, 1)), cuts, np.full((fewest, 1), size)], axis=1)
    lengths = np.diff(bounds.astype(np.int64), axis=1).ravel()
    lengths = generator.permutation(lengths[lengths > 0])
    packs = pack(lengths, size, seed)
    assert fewest <= len(packs) <= 11 / 9 * fewest + 4


@pytest.mark.parametrize(("size", "fill"), [(512, 0.99), (2048, 0.995)])
def test_packs_of_a_dictionary_s_short_rows_and_of_long_tailed_ones_are_nearly_full(size: int, fill: float) -> None:
    generator = np.random.default_rng(0)
    short = generator.integers(20, 61, 20_000)
    long_tailed = np.clip(generator.lognormal(5, 1, 20_000), 1, size).astype(int)
    assert pack(short, size, 0).fill > fill
    assert pack(long_tailed, size, 0).fill > fill


def test_a_seed_always_gives_the_same_packs_and_another_lets_other_rows_meet() -> None:
    lengths = np.full(1000, 10)
    first, again, other = (pack(lengths, 50, seed) for seed in (1, 1, 2))
    assert first.rows.tolist() == again.rows.tolist()
    assert first.rows.tolist() != other.rows.tolist()
    neighbours = sum(bool((np.diff(np.sort(first[number])) == 1).any()) for number in range(len(first)))
    assert neighbours < 0.1 * len(first)


def test_a_row_longer_than_a_pack_is_one_clear_error_and_empty_rows_are_kept() -> None:
    with pytest.raises(DataError, match="row 1 has 1,200 tokens, and a pack holds 1,024"):
        pack(np.array([5, 1200]), 1024, 0)
    packs = pack(np.array([0, 3, 0]), 4, 0)
    assert sorted(packs.rows.tolist()) == [0, 1, 2]
    assert packs.lengths.sum() == 3
    assert len(pack(np.array([], dtype=np.int32), 4, 0)) == 0


def test_an_item_of_packed_rows_is_the_rows_of_one_pack() -> None:
    ids = [[1, 2, 3], [4], [5, 6], [7, 8]]
    lists = pa.array(ids, pa.list_(pa.int32()))
    rows = TokenRows([pa.table({"input_ids": lists, "labels": lists})])
    items = PackedRows(rows, pack(rows.lengths, 4, 0))
    assert items.lengths.tolist() == [4, 4]
    found = [sorted(row["input_ids"].tolist() for row in items[number]) for number in range(len(items))]
    assert found == [[[1, 2, 3], [4]], [[5, 6], [7, 8]]]
