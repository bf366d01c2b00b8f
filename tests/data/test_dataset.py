"""Columns, and the split into training and held-out rows."""

import random

import pytest
from datasets import Dataset

from lft.core.errors import DataError
from lft.data.columns import RowFormat, recognise, text_columns
from lft.data.dataset import split_held_out


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


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["text"], RowFormat(("text",), None)),
        (["prompt", "response"], RowFormat(("prompt",), "response")),
        (["Question", "Answer"], RowFormat(("Question",), "Answer")),
        (["output", "input", "instruction"], RowFormat(("instruction", "input"), "output")),
        (["title", "body"], RowFormat(("title", "body"), None)),
        (["prompt", "completion", "notes"], RowFormat(("prompt",), "completion")),
    ],
)
def test_columns_that_ask_and_answer_are_recognised_by_name(columns: list[str], expected: RowFormat) -> None:
    assert recognise(Dataset.from_list([dict.fromkeys(columns, "x")]), None) == expected


def test_common_names_come_before_other_text_columns_and_numbers_are_no_text() -> None:
    rows = Dataset.from_list([{"id": "7", "prompt": "a", "response": "b", "score": 0.5}])
    assert text_columns(rows) == ["prompt", "response"]
    assert text_columns(Dataset.from_list([{"id": 1, "titel": "a", "inhalt": "b"}])) == ["titel", "inhalt"]


def test_columns_are_joined_in_the_stated_template_and_empty_ones_left_out() -> None:
    row_format = RowFormat(("instruction", "input"), "output")
    assert row_format.describe() == "{instruction}\\n{input} -> {output}"
    assert row_format.combine({"instruction": " Add. ", "input": "1 2", "output": "3 "}) == ("Add.\n1 2", "3")
    assert row_format.combine({"instruction": "Add.", "input": None, "output": None}) == ("Add.", "")


def test_rows_without_text_and_unknown_columns_are_refused_with_what_there_is() -> None:
    with pytest.raises(DataError, match=r"no column holds text; the columns are a \(int64\)"):
        recognise(Dataset.from_list([{"a": 1}]), None)
    with pytest.raises(DataError, match=r"column answer should answer question, but holds int64"):
        recognise(Dataset.from_list([{"question": "2+2", "answer": 4}]), None)
    assert recognise(Dataset.from_list([{"question": "x", "answer": "y"}]), ["question", "question"]).columns == [
        "question"
    ]
    with pytest.raises(DataError, match="no column b, c; the columns are a"):
        recognise(Dataset.from_list([{"a": "x"}]), ["b", "c"])
