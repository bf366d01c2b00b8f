"""Which items a step trains: the same for any number of ranks, and the same again from any cursor."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lft.core.rank import Rank
from lft.train.sampling import WINDOW, RankBatchSampler, epoch_order, items_seen, micro_batches

LENGTHS = np.random.default_rng(0).lognormal(4, 1, 5_000).astype(np.int32)


@pytest.mark.parametrize("items", [1, 7, 48, 57, 64])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_step_trains_the_same_items_for_any_number_of_ranks(
    items: int, world_size: int, accumulation: int
) -> None:
    order, global_batch = list(range(items)), 4 * accumulation * world_size
    by_rank = [micro_batches(order, 4, rank, world_size) for rank in range(world_size)]
    assert len({len(batches) for batches in by_rank}) == 1
    for step in range(-(-items // global_batch)):
        turns = slice(step * accumulation, (step + 1) * accumulation)
        trained = [item for batches in by_rank for batch in batches[turns] for item in batch]
        assert sorted(trained) == order[step * global_batch : (step + 1) * global_batch]
    assert items_seen(-(-items // global_batch), items, global_batch) == items


@given(st.integers(0, 700), st.integers(1, 12), st.integers(0, 3), st.booleans())
def test_an_epoch_holds_every_item_once(items: int, group: int, epoch: int, grouped: bool) -> None:
    order = epoch_order(LENGTHS[:items], 1, epoch, group if grouped else 0)
    assert sorted(order.tolist()) == list(range(items))


@pytest.mark.parametrize("group", [0, 16])
def test_an_epoch_is_a_new_order_the_same_on_all_ranks_and_for_the_same_seed(group: int) -> None:
    samplers = [RankBatchSampler(LENGTHS[:300], 4, Rank(rank=rank, world_size=2), 1, group) for rank in range(2)]

    def epoch(number: int) -> list[int]:
        for sampler in samplers:
            sampler.set_epoch(number)
        return [item for pair in zip(*samplers, strict=True) for batch in pair for item in batch]

    first, second = epoch(0), epoch(1)
    assert sorted(first) == sorted(second) == list(range(300))
    assert first != second
    assert epoch(0) == first
    assert first == epoch_order(LENGTHS[:300], 1, 0, group).tolist() != epoch_order(LENGTHS[:300], 2, 0, group).tolist()
    assert [len(sampler) for sampler in samplers] == [38, 38]


def test_grouped_rows_pad_little_begin_with_the_longest_and_are_not_in_order_of_length() -> None:
    def padded(order: np.ndarray) -> int:
        return sum(int(LENGTHS[order[start : start + 4]].max()) * 4 for start in range(0, len(order), 4))

    plain, grouped, second = (epoch_order(LENGTHS, 0, epoch, group) for epoch, group in ((0, 0), (0, 16), (1, 16)))
    assert LENGTHS[grouped[:16]].max() == LENGTHS.max()
    assert padded(plain) > 1.5 * LENGTHS.sum()
    assert padded(grouped) < 1.1 * LENGTHS.sum()
    assert padded(second) < 1.1 * LENGTHS.sum()
    means = LENGTHS[second[: 16 * 300]].reshape(300, 16).mean(axis=1)
    assert abs(np.corrcoef(means, np.arange(300))[0, 1]) < 0.2
    assert len(set(grouped[: WINDOW * 16].tolist()) & set(second[: WINDOW * 16].tolist())) < WINDOW * 16 / 2


def test_the_last_batch_that_is_not_full_is_drawn_from_all_items_and_never_holds_the_longest_first() -> None:
    tails = [LENGTHS[epoch_order(LENGTHS[:1000], seed, 0, 16)[-8:]].mean() for seed in range(200)]
    assert np.mean(tails) == pytest.approx(LENGTHS[:1000].mean(), rel=0.1)
    for seed in range(50):
        assert LENGTHS[epoch_order(LENGTHS[:1000], seed, 0, 16)[:16]].max() == LENGTHS[:1000].max()


def test_where_items_are_only_shuffled_the_longest_still_comes_first_and_only_in_the_first_epoch() -> None:
    first, second = (epoch_order(LENGTHS[:1000], 3, epoch) for epoch in (0, 1))
    assert LENGTHS[first[0]] == LENGTHS[:1000].max()
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(1000))
    assert first[0] != second[0]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("group", [0, 12])
@pytest.mark.parametrize("steps", [0, 1, 5, 9, 13])
def test_a_sampler_goes_on_at_a_cursor_as_an_uninterrupted_one_whatever_the_ranks_were(
    world_size: int, group: int, steps: int
) -> None:
    """9 steps an epoch, the last of 4 items; written down by one rank, gone on with by several."""
    items, global_batch = 100, 12
    alone = RankBatchSampler(LENGTHS[:items], 12, Rank(), 3, group)
    uninterrupted: list[list[int]] = []
    for epoch in range(2):
        alone.set_epoch(epoch)
        uninterrupted += alone
    cursor = items_seen(steps, items, global_batch)
    assert cursor == sum(map(len, uninterrupted[:steps]))
    samplers = [
        RankBatchSampler(LENGTHS[:items], 2, Rank(rank=rank, world_size=world_size), 3, group)
        for rank in range(world_size)
    ]
    epoch, steps_into = divmod(steps, 9)
    done = steps_into * (global_batch // (2 * world_size))  # the micro-batches that the Trainer leaves out
    for sampler in samplers:
        sampler.set_epoch(epoch)
    assert {len(sampler) for sampler in samplers} == {len(list(sampler)) for sampler in samplers}
    rest = [item for turn in list(zip(*samplers, strict=True))[done:] for batch in turn for item in batch]
    end = 9 if steps < 9 else 18
    assert rest == [item for batch in uninterrupted[steps:end] for item in batch]
