"""Rows of tokens by number, read out of Arrow tables without copying them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lft.data.zero_copy import lists_of, to_numpy

if TYPE_CHECKING:
    from datasets import Dataset

LIST = pa.list_(pa.int32())


class TokenRows:
    """Random access to the rows of tables with list columns input_ids and labels, one label a token, none missing.

    A row costs two slices of what the tables map. `lengths` (rows,) int32 are the tokens of each row.
    """

    def __init__(self, tables: Sequence[pa.Table | pa.RecordBatch]) -> None:
        """Rows in the order of the tables. Raises ValueError where a row has other than one label a token."""
        self._batches = [
            batch
            for table in tables
            for batch in (table.to_batches() if isinstance(table, pa.Table) else [table])
            if batch.num_rows
        ]
        self._ids, offsets = _flat(self._batches, "input_ids")
        self._labels, label_offsets = _flat(self._batches, "labels")
        if not all(np.array_equal(*pair) for pair in zip(offsets, label_offsets, strict=True)):
            raise ValueError("a row has other than one label a token")
        empty = np.zeros(0, dtype=np.int64)
        self._chunk = np.repeat(np.arange(len(offsets)), [len(of_one) - 1 for of_one in offsets]).astype(np.int32)
        self._start = np.concatenate([empty, *(of_one[:-1] for of_one in offsets)])
        self._length = np.concatenate([empty, *(np.diff(of_one) for of_one in offsets)]).astype(np.int32)
        self._index = np.arange(len(self._length))
        self.lengths = self._length

    @classmethod
    def from_dataset(cls, dataset: "Dataset", pad_token_id: int | None = None) -> "TokenRows":
        """Rows of a caller's tokenized data set, without padding, and with labels: its own where it has some, else its tokens.

        Padding is what the attention mask says. Rows with neither mask nor labels end before a run of pad tokens, of
        which one is kept, since the pad token may also be the end token.
        """
        names = ("input_ids", "attention_mask", "labels")
        others = [name for name in dataset.column_names if name not in names]
        table: pa.Table = dataset.remove_columns(others).with_format("arrow")[:]
        return cls([_trimmed(batch, pad_token_id) for batch in table.combine_chunks().to_batches()])

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """input_ids (tokens,) and labels (tokens,), both int32 and read-only."""
        row = self._index[index]
        chunk, start = self._chunk[row], self._start[row]
        stop = start + self._length[row]
        return {"input_ids": self._ids[chunk][start:stop], "labels": self._labels[chunk][start:stop]}

    def column(self, name: str) -> np.ndarray:
        """A column of numbers (rows,). Raises KeyError where there is none of that name."""
        if not self._batches:
            return np.zeros(0, dtype=np.int64)
        return np.concatenate([to_numpy(batch.column(name)) for batch in self._batches])[self._index]

    def take(self, indices: Any) -> "TokenRows":
        """A view on the rows of these numbers (an integer array), in that order; repeats are allowed."""
        view = object.__new__(type(self))
        vars(view).update(vars(self))
        view._index = self._index[np.asarray(indices, dtype=np.int64)]
        view.lengths = self._length[view._index]
        return view


def _flat(batches: Sequence[pa.RecordBatch], name: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The values of a list column, one behind the other, and where each row begins among them, for each batch."""
    columns = [batch.column(name) for batch in batches]
    offsets = [to_numpy(column.offsets).astype(np.int64) for column in columns]
    values = [
        to_numpy(column.values)[of_one[0] : of_one[-1]] for column, of_one in zip(columns, offsets, strict=True)
    ]  # not column.flatten(), which imports pyarrow.compute
    return values, [of_one - of_one[0] for of_one in offsets]


def _trimmed(batch: pa.RecordBatch, pad_token_id: int | None) -> pa.RecordBatch:
    """The tokens of a batch that are no padding, and their labels."""
    named = {name: batch.column(name) for name in batch.schema.names if batch.column(name).null_count == 0}
    columns = {name: column.cast(LIST) for name, column in named.items()}
    ids, labels = columns["input_ids"], columns.get("labels", columns["input_ids"])
    if "attention_mask" in columns:
        kept = to_numpy(columns["attention_mask"].flatten()) != 0
    elif "labels" not in columns and pad_token_id is not None:
        kept = ~_pad_runs(ids, pad_token_id)
    else:
        kept = np.ones(0, dtype=bool)  # all of them
    if not kept.all():
        ids, labels = _filtered(ids, kept), _filtered(labels, kept)
    return pa.record_batch({"input_ids": ids, "labels": labels})


def _pad_runs(ids: pa.Array, pad_token_id: int) -> np.ndarray:
    """Which tokens (tokens of all rows,) belong to the run of pad tokens at the end of their row, but for its first."""
    values, offsets = to_numpy(ids.flatten()), to_numpy(ids.offsets).astype(np.int64)
    offsets = offsets - offsets[0]
    places = np.arange(len(values))
    after_text = np.maximum.accumulate(np.where(values != pad_token_id, places + 1, 0))
    starts, stops = np.repeat(offsets[:-1], np.diff(offsets)), np.repeat(offsets[1:], np.diff(offsets))
    run: np.ndarray = np.maximum(after_text[stops - 1], starts) if len(values) else starts
    return places > run


def _filtered(lists: pa.Array, kept: np.ndarray) -> pa.Array:
    """Lists without the values that are not kept, (values of all lists,)."""
    offsets = to_numpy(lists.offsets).astype(np.int64)
    before = np.concatenate([[0], np.cumsum(kept)])
    values = to_numpy(lists.flatten())[kept]
    return lists_of(before[offsets - offsets[0]], values)
