"""Rows of tokens by number, out of any tables, and out of a caller's own tokenized data set."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from lft.data.token_rows import TokenRows

Lists = list[list[int]]
TOKENS = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=8)


def table(ids: Lists, **columns: Any) -> pa.Table:
    """A table with labels that are ten times the tokens."""
    labels = [[10 * token for token in row] for row in ids]
    kind = pa.list_(pa.int32())
    return pa.table({"input_ids": pa.array(ids, kind), "labels": pa.array(labels, kind), **columns})


def lists(rows: TokenRows, name: str = "input_ids") -> Lists:
    """A list column as it was."""
    return [rows[index][name].tolist() for index in range(len(rows))]


@given(TOKENS, TOKENS, st.data())
def test_rows_are_those_of_the_tables_in_order_and_of_any_view(
    first: Lists, second: Lists, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(second)))
    numbers = pa.array(range(len(first)), pa.int64()), pa.array(range(len(second)), pa.int64())
    rows = TokenRows([table(first, where=numbers[0]), table(second, where=numbers[1]).slice(cut)])
    expected = first + second[cut:]
    assert lists(rows) == expected
    assert lists(rows, "labels") == [[10 * token for token in row] for row in expected]
    assert rows.lengths.tolist() == [len(row) for row in expected]
    taken = data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=9) if expected else st.just([]))
    view = rows.take(taken)
    assert lists(view) == [expected[index] for index in taken]
    assert view.lengths.tolist() == [len(expected[index]) for index in taken]
    again = view.take(range(len(view))[::-1])
    where = [*range(len(first)), *range(cut, len(second))]
    assert again.column("where").tolist() == [where[index] for index in taken[::-1]]


def test_rows_are_not_copied_and_cannot_be_changed() -> None:
    tokens = pa.array([[1, 2], [3]], pa.list_(pa.int32()))
    rows = TokenRows([pa.table({"input_ids": tokens, "labels": tokens})])
    buffer = tokens.values.buffers()[1]
    found = rows[1]["input_ids"]
    assert found.dtype == np.int32
    assert found.ctypes.data == buffer.address + 2 * 4
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_a_row_with_other_than_one_label_a_token_is_refused() -> None:
    kind = pa.list_(pa.int32())
    wrong = pa.table({"input_ids": pa.array([[1, 2]], kind), "labels": pa.array([[1]], kind)})
    with pytest.raises(ValueError, match="one label a token"):
        TokenRows([wrong])


@pytest.mark.parametrize(
    ("row", "ids", "labels"),
    [
        ({"input_ids": [5, 6], "labels": [-100, 6]}, [5, 6], [-100, 6]),
        ({"input_ids": [5, 6, 0, 0], "labels": [-100, 6, 0, 0]}, [5, 6, 0, 0], [-100, 6, 0, 0]),
        ({"input_ids": [5, 6, 0, 0], "attention_mask": [1, 1, 1, 0]}, [5, 6, 0], [5, 6, 0]),
        ({"input_ids": [0, 0, 5, 6], "attention_mask": [0, 0, 1, 1], "labels": [0, 0, 5, 6]}, [5, 6], [5, 6]),
        ({"input_ids": [5, 6, 0, 0, 0], "note": "a"}, [5, 6, 0], [5, 6, 0]),
        ({"input_ids": [5, 6, 0]}, [5, 6, 0], [5, 6, 0]),
        ({"input_ids": [0, 0, 0]}, [0], [0]),
        ({"input_ids": torch.tensor([5, 6]), "labels": torch.tensor([5, -100])}, [5, 6], [5, -100]),
    ],
)
def test_a_caller_s_padding_is_never_trained_even_where_it_is_the_end_token(
    row: dict[str, Any], ids: list[int], labels: list[int]
) -> None:
    first = {name: [7] if name != "note" else "b" for name in row} | ({"labels": [7]} if "labels" in row else {})
    first |= {"attention_mask": [1]} if "attention_mask" in row else {}
    rows = TokenRows.from_dataset(Dataset.from_list([first, row, row, first]).select([0, 2, 1, 3]), pad_token_id=0)
    assert lists(rows) == [[7], ids, ids, [7]]
    assert lists(rows, "labels") == [[7], labels, labels, [7]]
