"""Rows of tokens in memory, as the shards have them; for tests of what reads only their columns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lft.data.shard_format import END_TRAINED, IGNORED, SCHEMA


def row(number: int, asked: int = 8, answered: int = 4, **changes: Any) -> dict[str, Any]:
    """A row of so many tokens, the answer trained with its end; `changes` are laid over its columns."""
    ids = list(range(asked + answered))
    values = {
        "input_ids": ids,
        "labels": [IGNORED] * asked + ids[asked:],
        "trained": answered,
        "answer_from": asked,
        "content": number,
        "prompt": 2**40 + number,
        "file": 0,
        "where": number,
        "flags": END_TRAINED,
        "whole": len(ids),
    }
    return values | changes


class SomeRows:
    """Columns over one batch of SCHEMA."""

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        self._table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
        self.lengths = np.array(self._table["input_ids"].combine_chunks().value_lengths().to_numpy(), np.int32)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> dict[str, np.ndarray[Any, Any]]:
        names = ("input_ids", "labels")
        return {name: np.array(self._table[name][index].as_py(), np.int32) for name in names}

    def column(self, name: str) -> np.ndarray[Any, Any]:
        values: np.ndarray[Any, Any] = self._table[name].to_numpy()
        return values


@dataclass(frozen=True)
class SomeCounts:
    """What a manifest says of the rows that are not in the shards."""

    empty: int = 0
    bad: Sequence[tuple[int, int, str]] = field(default=())
    masked: int = 0
