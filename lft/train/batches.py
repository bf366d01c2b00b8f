"""Rows as one batch of tensors: padded to the longest row, or packed, several rows in one sequence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from lft.data.shard_format import IGNORED
from lft.train.attention import row_borders
from lft.train.loss import predicting_positions

Row = Mapping[str, Any]
"""input_ids (tokens,) and labels (tokens,): integer arrays or lists, without padding."""


@dataclass(slots=True)
class Tally:
    """What the batches of this rank have held so far."""

    tokens: int = 0
    """Of rows; padding is none."""
    trained_tokens: int = 0
    places: int = 0
    """Tokens and padding."""
    pairs: int = 0
    """The squares of the rows' lengths, added up: what attention costs."""


class PadToLongest:
    """Collates rows into tensors (rows, longest row), padded on the right; padding and first tokens have no label.

    With `selects_logits` the batch also tells the model to project only the positions that predict a trained token: the
    vocabulary is a large part of a small model's arithmetic.

    A batch without rows becomes one token without label: a loss of zero that is still connected to the model, so that
    the other ranks' gradient sums do not wait for ever.
    """

    def __init__(self, pad_token_id: int, *, selects_logits: bool = False) -> None:
        self.pad_token_id, self.selects_logits, self.tally = pad_token_id, selects_logits, Tally()

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """One batch; rows without tokens are left out."""
        rows = [row for row in rows if len(row["input_ids"])]
        batch = _filled([[row] for row in rows], self.pad_token_id, self.tally, selects_logits=self.selects_logits)
        lengths = torch.tensor([len(row["input_ids"]) for row in rows] or [1])
        places = torch.arange(batch["input_ids"].shape[1])
        return batch | {"attention_mask": (places < lengths[:, None]).long()}


class PackRows:
    """Collates packs into tensors (packs, longest pack), padded on the right; no row predicts anything of another.

    `position_ids` begin again at 0 for each row, and once more for the padding, which is like one more row. There is no
    attention mask, and no cache: with neither, transformers makes from the positions one that keeps rows apart (it takes
    a position that is not one more than the last as the start of a row; masking_utils, 5.23). With a cache, which is most
    models' default, rows would silently see each other.

    `selects_logits` and a batch without rows are as in PadToLongest.
    """

    def __init__(self, pad_token_id: int, *, selects_logits: bool = False) -> None:
        self.pad_token_id, self.selects_logits, self.tally = pad_token_id, selects_logits, Tally()

    def __call__(self, packs: Sequence[Sequence[Row]]) -> dict[str, Any]:
        """One batch of lists of rows; rows without tokens are left out."""
        lines = [[row for row in pack if len(row["input_ids"])] for pack in packs]
        lines = [rows for rows in lines if rows]
        batch = _filled(lines, self.pad_token_id, self.tally, selects_logits=self.selects_logits)
        positions = np.zeros(batch["input_ids"].shape, dtype=np.int64)
        for line, rows in zip(positions, lines, strict=False):
            start = 0
            for length in [*(len(row["input_ids"]) for row in rows), len(line)]:
                line[start : start + length] = np.arange(min(length, len(line) - start))
                start += length
        position_ids = torch.from_numpy(positions)
        return batch | row_borders(position_ids) | {"position_ids": position_ids, "use_cache": False}


def _filled(lines: Sequence[Sequence[Row]], pad_token_id: int, tally: Tally, *, selects_logits: bool) -> dict[str, Any]:
    """input_ids and labels (lines, longest line); the first token of each row has no label: nothing may predict it."""
    width = max((sum(len(row["input_ids"]) for row in line) for line in lines), default=1)
    ids = np.full((max(len(lines), 1), width), pad_token_id, dtype=np.int64)
    labels = np.full(ids.shape, IGNORED, dtype=np.int64)
    for number, line in enumerate(lines):
        start = 0
        for row in line:
            stop = start + len(row["input_ids"])
            ids[number, start:stop] = row["input_ids"]
            labels[number, start + 1 : stop] = row["labels"][1:]
            tally.tokens += stop - start
            tally.pairs += (stop - start) ** 2
            start = stop
    tally.places += ids.size
    tally.trained_tokens += int((labels != IGNORED).sum())
    batch: dict[str, Any] = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
    if selects_logits:
        batch["logits_to_keep"] = predicting_positions(batch["labels"])
    return batch
