"""Which items (rows, or packs of rows) are trained in which step on which rank, and where an interrupted run goes on.

An epoch is one sequence of all items that (seed, epoch) decide. It is cut into global batches, one a step, and those into
micro-batches, which the ranks take in turn: micro-batch m of the epoch is rank m mod world size's. So a step trains the same
items for any number of ranks, as long as the global batch is the same, no item comes twice in an epoch, and where items are
in order of length, the ranks compute neighbours of similar length at the same time. (accelerate's sharded loaders repeat
rows to even out the ranks.)

The cursor is the number of items trained since the run began (`items_seen`), and all that has to be known of the place in
the data: its quotient by the number of items is the epoch, its remainder the place in that epoch's sequence. A run that
starts there trains what an uninterrupted one would, on any number of ranks with the same global batch.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from lft.core.rank import Rank

WINDOW = 50
"""Global batches within which items are put in order of length: enough to pad little, few enough to mix."""


def epoch_order(lengths: np.ndarray, seed: int, epoch: int, group: int = 0) -> np.ndarray:
    """The items of one epoch, counted from 0, in the order they are trained: (items,) int64.

    A plain shuffle; with `group`, the global batch, global batches of items of similar length, shuffled. The first of the
    first epoch holds the longest item, so that running out of memory shows at step 1. The last batch, if it is not full, is
    drawn from all items.
    """
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    if epoch == 0 and len(order):
        longest = int(lengths[order].argmax())
        order[[0, longest]] = order[[longest, 0]]
    if not group or not len(order):
        return order
    whole = len(order) // group  # batches
    windows = np.arange(len(order)) // (WINDOW * group)
    windows[whole * group :] = len(order)
    order = order[np.lexsort((lengths[order], windows))]
    batches = generator.permutation(whole)
    if epoch == 0 and whole:
        first = int(np.flatnonzero(batches == min(whole, WINDOW) - 1)[0])  # the last of the first window
        batches[[0, first]] = batches[[first, 0]]
    shuffled = order[: whole * group].reshape(whole, group)[batches].ravel()
    return np.concatenate([shuffled, order[whole * group :]])


def micro_batches(items: Sequence[int] | np.ndarray, batch_size: int, rank: int, world_size: int) -> list[list[int]]:
    """One rank's micro-batches of a sequence; the same number on each rank, so that the last ones may be empty.

    With accumulation a, step s trains items s*G to (s+1)*G, where G = batch_size * a * world_size.
    """
    sequence = np.asarray(items, dtype=np.int64)
    count = -(-len(sequence) // (batch_size * world_size))  # per rank
    turns = [turn * world_size + rank for turn in range(count)]
    return [sequence[turn * batch_size : (turn + 1) * batch_size].tolist() for turn in turns]


def items_seen(steps: int, items: int, global_batch: int) -> int:
    """The cursor after `steps` steps; the last step of an epoch takes what is left."""
    steps_per_epoch = -(-items // global_batch)
    epochs, steps_into = divmod(steps, steps_per_epoch)
    return epochs * items + min(steps_into * global_batch, items)


class RankBatchSampler:
    """Micro-batches of item numbers for one rank; another order each epoch, the same on all ranks.

    `lengths` (items,) are the tokens of each item; `group` is the global batch where items of similar length are to be
    trained together, else 0.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, rank: Rank, seed: int, group: int = 0) -> None:
        self.lengths, self.batch_size, self.rank, self.seed, self.group = lengths, batch_size, rank, seed, group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Begin this epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.lengths) // (self.batch_size * self.rank.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        order = epoch_order(self.lengths, self.seed, self.epoch, self.group)
        yield from micro_batches(order, self.batch_size, self.rank.rank, self.rank.world_size)
