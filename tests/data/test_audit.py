"""The label audit finds what it is for, and nothing in rows that are as they should be."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from lft.core.errors import DataError
from lft.data.audit import Audit, audit_lines, audit_rows, findings, refuse_hopeless
from lft.data.shard_format import BEGIN_DOUBLED, CUT, END_TRAINED, MASKED
from tests.data.some_rows import SomeCounts, SomeRows, row


def look(training: list[dict[str, Any]], held_out: list[dict[str, Any]] | None = None, **counts: Any) -> Audit:
    """The audit of these rows, whose places are `file 0, row 7`."""
    pad_is_end = counts.pop("pad_is_end", False)
    return audit_rows(
        SomeRows(training),
        SomeRows(held_out or []),
        SomeCounts(**counts),
        lambda file, where: f"{'abc'[file]}.jsonl:{where}",
        pad_is_end=pad_is_end,
    )


def usual(count: int = 100, first: int = 0) -> list[dict[str, Any]]:
    return [row(first + number) for number in range(count)]


def levels(audit: Audit) -> list[str]:
    return [finding.level for finding in findings(audit)]


def test_rows_as_they_should_be_raise_no_finding_and_are_told_in_one_line() -> None:
    audit = look(usual(), usual(10, first=500))
    assert findings(audit) == []
    assert audit_lines(audit) == [
        "labels     100 rows of 12 tokens, 33 % of them trained; 0 cut, 0 without anything trained, 10 held out"
    ]
    refuse_hopeless(audit)


@pytest.mark.parametrize(
    ("rows", "counts", "advice"),
    [
        ([row(number, answered=0, flags=MASKED) for number in range(50)], {}, "max_length"),
        ([], {"masked": 2}, "max_length"),
        ([], {"empty": 4}, "text_columns"),
    ],
    ids=["labels all ignored", "all rows left out", "no rows"],
)
def test_data_that_train_nothing_stop_the_run_with_what_to_change(
    rows: list[dict[str, Any]], counts: dict[str, Any], advice: str
) -> None:
    audit = look(rows, **counts)
    assert levels(audit)[0] == "stop"
    with pytest.raises(DataError, match="nothing would be trained") as caught:
        refuse_hopeless(audit)
    assert advice in caught.value.next_step


WORRYING: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "few rows": (usual(19), "only 19 rows to train on", "data.source"),
    "little trained": ([row(n, asked=96) for n in range(50)], "only 4 % of the tokens are trained", "data.loss_on"),
    "masked": (
        [*usual(98), *(row(n, asked=50, answered=0, flags=MASKED) for n in (98, 99))],
        "nothing is trained in 2 rows (2 %)",
        "raise data.max_length: 99 % of the rows fit into 50 tokens",
    ),
    "cut": (
        [*usual(80), *(row(n, flags=CUT, whole=100 + n) for n in range(80, 100))],
        "20 rows (20 %) are longer than data.max_length",
        "--set data.max_length=199 holds 99 %",
    ),
    "end": ([*usual(98), *(row(n, flags=0) for n in (98, 99))], "2 rows (2 %) do not train their end", "template"),
    "begin": ([*usual(99), row(99, flags=END_TRAINED | BEGIN_DOUBLED)], "1 row (1 %) begin with two", "template"),
    "duplicates": ([*usual(98), row(98, content=1), row(99, content=1)], "2 rows (2 %) repeat another", "repetitions"),
}


@pytest.mark.parametrize("name", WORRYING)
def test_a_worrying_figure_is_a_warning_with_its_numbers_and_what_to_do(name: str) -> None:
    rows, text, advice = WORRYING[name]
    (finding,) = findings(look(rows))
    assert finding.level == "warn"
    assert text in finding.text
    assert advice in finding.next_step
    (line,) = audit_lines(look(rows))[1:]
    assert line == f"warning    {finding.text}; {finding.next_step}"


@pytest.mark.parametrize(
    "few",
    [
        [row(99, asked=50, answered=0, flags=MASKED)],
        [row(n, flags=CUT, whole=900) for n in range(90, 100)],
        [row(99, flags=0)],
        [row(99, content=1)],
    ],
    ids=["masked", "cut", "end", "duplicates"],
)
def test_a_figure_at_its_bound_is_no_warning(few: list[dict[str, Any]]) -> None:
    assert findings(look([*usual(100 - len(few)), *few])) == []


def test_a_cut_row_does_not_count_as_one_that_fails_to_train_its_end() -> None:
    assert look([row(0, flags=CUT, whole=900)]).whole_without_end == 0


def test_prompts_on_both_sides_are_told_apart_from_rows_on_both_sides() -> None:
    audit = look(usual(), [row(500, prompt=2**40 + 3), *usual(9, first=600)])
    assert (audit.shared_prompts, audit.leaked) == (1, 0)
    assert levels(audit) == ["warn"]
    leaked = look(usual(), [row(3), *usual(9, first=600)])
    assert leaked.leaked == 1
    assert levels(leaked)[0] == "stop"


def test_plain_texts_have_no_prompt_that_could_stand_on_both_sides() -> None:
    texts = [row(n, answer_from=0, prompt=0) for n in range(120)]
    assert look(texts[:100], texts[100:]).shared_prompts == 0


def test_rows_repeated_by_their_weight_are_no_duplicates() -> None:
    audit = look([each for each in usual(50) for _ in range(3)])
    assert (audit.rows, audit.duplicates) == (150, 0)
    assert [each.place for each in audit.longest] == ["a.jsonl:0", "a.jsonl:1", "a.jsonl:2"]


def test_equal_rows_of_two_files_are_duplicates_even_side_by_side() -> None:
    assert look([row(0), row(0, file=1), row(1)]).duplicates == 1


def test_the_longest_rows_are_named_with_their_places_and_uncut_lengths() -> None:
    rows = [*usual(50), row(50, flags=CUT, whole=70, file=1, where=7), row(51, whole=30)]
    audit = look(rows)
    assert audit.longest[:2] == (("b.jsonl:7", 70), ("a.jsonl:51", 30))


def test_bad_and_empty_rows_and_a_shared_pad_token_are_noted_once() -> None:
    audit = look(usual(), bad=[(1, 3, "answer is null"), (1, 4, "not JSON")], empty=5, pad_is_end=True)
    assert audit.bad_places == ("b.jsonl:3: answer is null", "b.jsonl:4: not JSON")
    assert [(level, text.split(",")[0]) for level, text, _ in findings(audit)] == [
        ("note", "2 bad rows left out"),
        ("note", "5 rows without text or answer left out"),
        ("note", "padding and end are one token: harmless here"),
    ]


def test_an_audit_survives_json_with_all_its_figures() -> None:
    audit = look(usual(), bad=[(1, 3, "answer is null")])
    figures = json.loads(json.dumps(audit.to_json()))
    assert figures["rows"] == 100
    assert figures["longest"][0] == {"place": "a.jsonl:0", "tokens": 12}
    assert figures["bad_places"] == ["b.jsonl:3: answer is null"]


def test_a_million_rows_need_little_memory() -> None:
    class Million:
        lengths = np.full(10**6, 20, np.int32)
        columns: dict[str, np.ndarray[Any, Any]] = {  # noqa: RUF012
            "flags": np.full(10**6, END_TRAINED, np.uint8),
            "content": np.arange(10**6, dtype=np.uint64) * 7919 % 999_983,
            "prompt": np.arange(10**6, dtype=np.uint64),
            "where": np.arange(10**6),
            "file": np.zeros(10**6, np.int32),
            **{name: np.full(10**6, 20, np.int32) for name in ("trained", "answer_from", "whole")},
        }

        def column(self, name: str) -> np.ndarray[Any, Any]:
            return self.columns[name]

    rows, none = Million(), SomeRows([])
    tracemalloc.start()
    audit = audit_rows(rows, none, SomeCounts(), lambda file, where: f"{file}:{where}")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 100 * 10**6
    assert audit.duplicates == 10**6 - 999_983
