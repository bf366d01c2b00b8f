"""Which rows go into which batch on which rank, and padding a batch to its longest row.

The order of the rows is one global sequence, cut into global batches and those into micro-batches; ranks take micro-batches
in turn. So a step sees the same rows for any number of ranks, as long as the global batch is the same, and no row twice in an
epoch. (accelerate's sharded loaders repeat rows to even out the ranks.)
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from lft.core.rank import Rank
from lft.data.tokenization import IGNORED
from lft.train.loss import predicting_positions


def micro_batches(rows: Sequence[int], batch_size: int, rank: int, world_size: int) -> list[list[int]]:
    """One rank's micro-batches of an epoch; the same number on each rank, so that the last ones may be empty.

    With accumulation a, step s trains rows s*G to (s+1)*G, where G = batch_size * a * world_size.
    """
    count = -(-len(rows) // (batch_size * world_size))  # per rank
    order = [turn * world_size + rank for turn in range(count)]
    return [list(rows[index * batch_size : (index + 1) * batch_size]) for index in order]


def rows_seen(steps: int, rows: int, global_batch: int) -> int:
    """How many rows have been trained after `steps` steps; the last step of an epoch takes what is left."""
    steps_per_epoch = -(-rows // global_batch)
    epochs, steps_into = divmod(steps, steps_per_epoch)
    return epochs * rows + min(steps_into * global_batch, rows)


class RankBatchSampler(Sampler[list[int]]):
    """Micro-batches of row numbers for one rank; another shuffle each epoch, the same on all ranks."""

    def __init__(self, rows: int, batch_size: int, rank: Rank, seed: int) -> None:
        self.rows, self.batch_size, self.rank, self.seed = rows, batch_size, rank, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle of this epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.rows // (self.batch_size * self.rank.world_size))

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.rows, generator=generator).tolist()
        yield from micro_batches(order, self.batch_size, self.rank.rank, self.rank.world_size)


def trim(row: dict[str, Any], pad_token_id: int) -> dict[str, list[int]]:
    """A caller's tokenized row without padding, and with labels: its own where it has some, else its tokens.

    Padding is what the attention mask says; without a mask, a run of pad tokens at the end, of which one is kept, since the
    pad token may also be the end token.
    """
    ids = _integers(row["input_ids"])
    labels = _integers(row["labels"]) if row.get("labels") is not None else ids
    if row.get("attention_mask") is not None:
        kept = [position for position, seen in enumerate(_integers(row["attention_mask"])) if seen]
    else:
        length = len(ids)
        while length > 1 and ids[length - 1] == ids[length - 2] == pad_token_id:
            length -= 1
        kept = list(range(length))
    return {"input_ids": [ids[place] for place in kept], "labels": [labels[place] for place in kept]}


def _integers(values: Any) -> list[int]:
    return values if isinstance(values, list) else [int(value) for value in values]


class PadToLongest:
    """Collates rows into tensors (batch, longest row), padded on the right; padding and first tokens have no label.

    With `selects_logits` the batch also tells the model to project only the positions that predict a trained token: the
    vocabulary is a large part of a small model's arithmetic.

    A batch without rows becomes one token without label: a loss of zero that is still connected to the model, so that
    the other ranks' gradient sums do not wait for ever.
    """

    def __init__(self, pad_token_id: int, *, selects_logits: bool = False) -> None:
        self.pad_token_id, self.selects_logits = pad_token_id, selects_logits

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """One batch of token rows as `trim` takes them."""
        rows = [trim(row, self.pad_token_id) for row in rows]
        rows = [row for row in rows if row["input_ids"]] or [{"input_ids": [self.pad_token_id], "labels": [IGNORED]}]
        longest = max(len(row["input_ids"]) for row in rows)
        shape = (len(rows), longest)
        batch = {
            "input_ids": torch.full(shape, self.pad_token_id),
            "attention_mask": torch.zeros(shape, dtype=torch.long),
            "labels": torch.full(shape, IGNORED),
        }
        for index, row in enumerate(rows):
            length = len(row["input_ids"])
            batch["input_ids"][index, :length] = torch.tensor(row["input_ids"])
            batch["attention_mask"][index, :length] = 1
            batch["labels"][index, :length] = torch.tensor(row["labels"])
        batch["labels"][:, 0] = IGNORED  # nothing stands before it to predict it from
        if self.selects_logits:
            batch["logits_to_keep"] = predicting_positions(batch["labels"])
        return batch
