"""Local data files of every format as one data set."""

import csv
import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from lft.core.errors import DataError
from lft.core.settings import DataSettings
from lft.data.load import load_rows

ROWS = [{"prompt": "Wer?", "answer": "Ü 2024-01-31", "score": 1}, {"prompt": "No", "answer": "yes", "score": 2}]


def read(source: Path, num_samples: int | None = None) -> list[dict[str, Any]]:
    """The rows of a source."""
    data = DataSettings(source=str(source), num_samples=num_samples)
    with tempfile.TemporaryDirectory() as cache:
        rows: list[dict[str, Any]] = load_rows(data, cache=Path(cache)).to_list()
    return rows


def write(path: Path, kind: str) -> None:
    """ROWS in a file format."""
    if kind in (".json", ".jsonl"):
        text = json.dumps(ROWS) if kind == ".json" else "\n".join(map(json.dumps, ROWS)) + "\n\n"
        path.write_text(text, encoding="utf-8")
    elif kind == ".csv":
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(ROWS[0]))
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        table = pa.Table.from_pylist(ROWS)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".parquet", ".arrow"])
@pytest.mark.parametrize("zipped", [False, True])
def test_every_format_gives_the_same_rows_plain_or_gzipped(tmp_path: Path, suffix: str, zipped: bool) -> None:
    path = tmp_path / f"data{suffix}"
    write(path, suffix)
    if zipped:
        path = path.rename(tmp_path / "plain")
        (tmp_path / f"data{suffix}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path = tmp_path / f"data{suffix}.gz"
    assert read(path) == ROWS


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".csv", ".txt"])
def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"data{suffix}"
    text = {".json": '[{"text": "a"}]', ".jsonl": '{"text": "a"}', ".csv": "text\na\n", ".txt": "a\n"}[suffix]
    path.write_text(text, encoding="utf-8-sig")
    assert read(path) == [{"text": "a"}]


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ([{"a": "x"}, {"b": "y"}], [{"a": "x", "b": None}, {"a": None, "b": "y"}]),
        ({"a": ["x", "y"], "b": ["1", "2"]}, [{"a": "x", "b": "1"}, {"a": "y", "b": "2"}]),
        ({"version": 1, "data": [{"a": "x"}]}, [{"a": "x"}]),
        ({"data": [{"a": "x"}, {"a": "y"}]}, [{"a": "x"}, {"a": "y"}]),
        ({"a": "x"}, [{"a": "x"}]),
    ],
)
def test_json_may_be_records_columns_or_one_key_holding_the_records(
    tmp_path: Path, content: Any, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    assert read(path) == rows


def test_json_lines_in_a_file_called_json_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_text('{"a": "x"}\n{"a": "y"}\n', encoding="utf-8")
    assert read(path) == [{"a": "x"}, {"a": "y"}]


def test_text_keeps_lines_and_their_inner_separators(tmp_path: Path) -> None:
    path = tmp_path / "data.txt"
    path.write_bytes("one\u2028still one\r\n\n  \nthree".encode())
    assert read(path) == [{"text": "one\u2028still one"}, {"text": "three"}]


def test_quoted_csv_cells_may_hold_line_feeds_and_only_numbers_are_guessed(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text('text,day,flag,number\n"a\nb",2024-01-31,true,7\n,2024-02-01,false,\n', encoding="utf-8")
    assert read(path) == [
        {"text": "a\nb", "day": "2024-01-31", "flag": "true", "number": 7},
        {"text": None, "day": "2024-02-01", "flag": "false", "number": None},
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.jsonl", b'{"a": "x"}\n{"a": \n', "d.jsonl:2  is not JSON"),
        ("d.jsonl", b'{"a": "x"}\n\n[1]\n', "d.jsonl:3  is a JSON array; an object"),
        ("d.jsonl", b'{"a": "x"}\n{"a": "\xff"}\n', "d.jsonl:2  is not UTF-8"),
        ("d.jsonl", b'{"a": "x"}\n{"a": 1}\n', 'd.jsonl  column "a" mixes types'),
        ("d.json", b'[{"a": "x"},\n 7]', "d.json element 2  is a JSON number"),
        ("d.json", b'{"a": ["x"], "b": []}', "d.json  has columns of different lengths: a 1, b 0"),
        ("d.json", b'{"a": [{"x": 1}], "b": [{"x": 1}], "c": 1}', "several keys that hold records: a, b"),
        ("d.json", b"[\n1,,]", "d.json:2  is not JSON"),
        ("d.csv", b"a,b\n1,2\n1,2,3\n", "d.csv:3  has 3 cells; 2 are expected"),
        ("d.csv", b"a,a\n1,2\n", "d.csv:1  names a column twice: a"),
        ("d.csv", b"a,b\n", "d.csv  holds no rows"),
        ("d.txt", b"\n \n", "d.txt  holds no rows"),
        ("d.jsonl", b"", "d.jsonl  holds no rows"),
        ("d.json", b" ", "d.json  holds no rows"),
        ("d.parquet", b"PAR", "d.parquet  is not Parquet"),
        ("d.jsonl.gz", b"no gzip", "d.jsonl.gz  cannot be read"),
    ],
)
def test_a_bad_file_is_named_with_the_line_and_what_was_expected(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        read(path)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.jsonl", b'{"text": "\\ud800"}'),
        ("d.jsonl", b'{"a": 18446744073709551616000}'),
        ("d.jsonl", b'{"a": ' + b"9" * 5000 + b"}"),
        ("d.jsonl", b'{"a": ' + b"[" * 100_000),
        ("d.json", b"[" * 100_000),
        ("d.txt.gz", gzip.compress(b"text " * 1000)[:40] + b"x" * 40),
    ],
)
def test_whatever_a_file_holds_the_error_names_it(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        read(tmp_path / name)


def test_numbers_in_a_column_that_asks_or_answers_are_texts_as_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("question,answer,score\n2+2,4,1\nzip,00420,2\n", encoding="utf-8")
    assert read(tmp_path / "d.csv") == [
        {"question": "2+2", "answer": "4", "score": 1},
        {"question": "zip", "answer": "00420", "score": 2},
    ]
    (tmp_path / "d.jsonl").write_text('{"answer": 4}\n{"answer": 2.50}\n{"answer": "x"}\n', encoding="utf-8")
    assert read(tmp_path / "d.jsonl") == [{"answer": "4"}, {"answer": "2.5"}, {"answer": "x"}]


def test_folders_and_patterns_are_all_their_files_in_order(tmp_path: Path) -> None:
    for name, word in (("b.jsonl", "2"), ("a.jsonl", "1"), ("c.txt", "3")):
        (tmp_path / name).write_text(word if name == "c.txt" else json.dumps({"text": word}), encoding="utf-8")
    (tmp_path / "notes.md").write_text("not data", encoding="utf-8")
    assert [row["text"] for row in read(tmp_path)] == ["1", "2", "3"]
    assert [row["text"] for row in read(tmp_path / "*.jsonl")] == ["1", "2"]
    assert [row["text"] for row in read(tmp_path, num_samples=2)] == ["1", "2"]


def test_files_whose_columns_differ_in_type_are_refused_together(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "x"}', encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": ["x"]}', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl, b\.jsonl.*different types"):
        read(tmp_path)
