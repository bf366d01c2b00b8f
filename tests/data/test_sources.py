"""Sources cut into blocks: every row once, whatever the blocks; what is wrong with a row is said with its place."""

import gzip
import json
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lft.core.errors import DataError
from lft.core.settings import DataSettings, WeightedSource
from lft.data.bad_rows import bad_rows_error, find_bad_rows
from lft.data.example import BadRow, Row
from lft.data.formats import recognise
from lft.data.line_file import LineFile, json_row, text_row
from lft.data.sources import LARGEST_BLOCK, SMALLEST_BLOCK, Files, dataset_source, open_source
from lft.data.table_file import ArrowFile, ParquetFile, TableFile

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
lines = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r\ufeff")), max_size=12)


def opened(*names: str | Path, cache: Path, **data: Any) -> Files:
    """A source of one or several names."""
    source = str(names[0]) if len(names) == 1 else tuple(WeightedSource(source=str(name)) for name in names)
    return open_source(DataSettings(source=source, **data), cache=cache)


def rows(source: Files) -> list[Row | BadRow]:
    """All rows in order."""
    return [row for block in source.blocks for _, row in source.read(block)]


def read_in(file: Any, borders: Sequence[int]) -> list[tuple[int, Any]]:
    """All rows of a file read in ranges with these borders."""
    cuts = [0, *sorted({border for border in borders if 0 < border < file.size}), file.size]
    return [row for start, stop in pairwise(cuts) for row in file.read(start, stop)]


@quick
@given(lines, st.sampled_from(["\n", "\r\n", "\n \t\n"]), st.booleans(), st.booleans(), st.lists(st.integers(0, 300)))
def test_ranges_cut_anywhere_hold_every_line_once_and_in_order(
    tmp_path: Path, texts: list[str], end: str, ends_so: bool, has_mark: bool, borders: list[int]
) -> None:
    path = tmp_path / "rows.txt"
    mark = b"\xef\xbb\xbf" if has_mark else b""
    path.write_bytes(mark + (end.join(texts) + (end if ends_so else "")).encode())
    file = LineFile(path, text_row)
    expected = [text for text in texts if text.encode().strip()]
    found = read_in(file, borders)
    assert [row["text"] for _, row in found] == expected
    for where, row in found:
        assert path.read_bytes()[where:].startswith(row["text"].encode())


def test_a_range_of_any_single_byte_holds_the_line_that_begins_there_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes("über\r\n\n  \n€\n\nlong line\nend".encode())
    file = LineFile(path, text_row)
    found = read_in(file, range(file.size))
    assert [row["text"] for _, row in found] == ["über", "€", "long line", "end"]
    assert [file.place(where) for where, _ in found] == ["rows.txt:1", "rows.txt:4", "rows.txt:6", "rows.txt:7"]


def test_a_line_longer_than_many_blocks_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    words = ["a", "b" * (3 * SMALLEST_BLOCK), "c"]
    path.write_text("".join(json.dumps({"text": word}) + "\n" for word in words))
    source = opened(path, cache=tmp_path)
    assert len(source.blocks) == 4
    assert [row["text"] for row in rows(source) if not isinstance(row, BadRow)] == words


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"text": ', "is not JSON: Expecting value at column 10"),
        (b'{"text": "a"} {}', "is not JSON: Extra data at column 15"),
        (b"[1]", "is a JSON array; an object with columns is expected"),
        (b'{"text": "\xff"}', "is not UTF-8 text (byte 11 of the line)"),
        (b'{"text": "\\ud800"}', "holds half a character, \\ud800"),
        (b'{"text": ' + b"9" * 5000 + b"}", "cannot be read: Exceeds the limit"),
        (b'{"text": ' + b"[" * 100_000, "cannot be read: maximum recursion depth"),
    ],
)
def test_a_bad_line_is_named_and_spoils_no_other(tmp_path: Path, line: bytes, problem: str) -> None:
    path = tmp_path / "support.jsonl"
    path.write_bytes(b'{"text": "a"}\n\n' + line + b'\n {"text": "\\ud83d\\ude00"} \n')
    source = opened(path, cache=tmp_path)
    first, bad, last = rows(source)
    assert (first, last) == ({"text": "a"}, {"text": "\U0001f600"})
    assert isinstance(bad, BadRow)
    assert str(bad).startswith(problem)
    found = find_bad_rows(source, None)
    assert f"\n  support.jsonl:3  {problem}" in str(bad_rows_error(source, found))
    assert source.head() == [first, last]


def test_bad_rows_of_all_files_are_listed_up_to_a_number(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "a", "answer": null}\n' * 2)
    (tmp_path / "b.csv").write_text('prompt,answer\n"x\ny",\n1,2,3\n"no end,')
    (tmp_path / "c.json").write_text('[{"prompt": "a", "answer": "b"}, 7]')
    table = pa.table({"prompt": ["a", "b"], "answer": ["c", None]})
    pa.parquet.write_table(table, tmp_path / "d.parquet")
    source = opened(tmp_path, cache=tmp_path / "cache")
    row_format = recognise(source.head(), DataSettings(source="a/b"))
    error = bad_rows_error(source, find_bad_rows(source, row_format))
    assert error.message.splitlines() == [
        "7 rows of the data cannot be used",
        "  a.jsonl:2  answer is null; text is expected",
        "  a.jsonl:4  answer is null; text is expected",
        "  b.csv:2  answer is null; text is expected",
        "  b.csv:4  has 3 cells; 2 are expected",
        "  b.csv:5  is not CSV: unexpected end of data",
        "  c.json element 2  is a JSON number; an object with columns is expected",
        "  d.parquet row 2  answer is null; text is expected",
    ]
    assert "on_bad_row=skip" in error.next_step
    few = find_bad_rows(source, row_format, most=2)
    assert few.may_be_more
    assert bad_rows_error(source, few).message.startswith("more than 2 rows")
    assert not find_bad_rows(source, row_format, most=7).may_be_more


def table_files(folder: Path, table: pa.Table, chunk: int) -> list[TableFile]:
    """The same table in every format that is cut by rows."""
    pa.parquet.write_table(table, folder / "t.parquet", row_group_size=chunk)
    for name, writer in (("file", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
        with pa.OSFile(str(folder / f"{name}.arrow"), "wb") as sink, writer(sink, table.schema) as out:
            out.write_table(table, max_chunksize=chunk)
    return [ParquetFile(folder / "t.parquet"), ArrowFile(folder / "file.arrow"), ArrowFile(folder / "stream.arrow")]


@quick
@given(st.integers(1, 5000), st.integers(1, 5000), st.lists(st.integers(0, 5000), max_size=6))
def test_ranges_of_tables_hold_every_row_once_and_in_order(
    tmp_path: Path, count: int, chunk: int, borders: list[int]
) -> None:
    chunk = max(chunk, count // 20)
    table = pa.table({"number": list(range(count)), "text": [str(number) for number in range(count)]})
    for file in table_files(tmp_path, table, chunk):
        found = read_in(file, borders)
        assert found == [(number, {"number": number, "text": str(number)}) for number in range(count)]
        if borders:  # a range read out of turn, while another one is half read
            start = min(borders[0], count - 1)
            half = file.read(0, count)
            assert next(half)[0] == 0
            assert next(iter(file.read(start, count)))[0] == start
            assert len(list(half)) == count - 1


def test_a_table_has_the_same_digest_in_every_format_and_chunking(tmp_path: Path) -> None:
    table = pa.table(
        {"text": ["a", None, "", "bc"] * 900, "messages": [[{"role": "user", "content": "x"}], None] * 1800}
    )
    files = table_files(tmp_path, table, 700)
    digests = {file.digest(100, 3000) for file in files}
    assert len(digests) == 1
    other = pa.table({"text": ["a", "", None, "bc"] * 900, "messages": table["messages"]})
    (tmp_path / "other").mkdir()
    assert table_files(tmp_path / "other", other, 700)[0].digest(100, 3000) not in digests


def test_a_data_set_in_memory_is_named_by_the_content_of_the_columns_used() -> None:
    def identity(values: list[str], ids: list[int]) -> list[Any]:
        return dataset_source(Dataset.from_dict({"text": values, "id": ids}), ["text"]).identity()

    assert identity(["a", "b"], [1, 2]) == identity(["a", "b"], [3, 4])
    assert identity(["a", "b"], [1, 2]) != identity(["ab", ""], [1, 2])
    shuffled = Dataset.from_dict({"text": ["b", "a", "c"]}).select([1, 0])
    assert dataset_source(shuffled).identity() == identity(["a", "b"], [0, 0])
    assert rows(dataset_source(shuffled)) == [{"text": "a"}, {"text": "b"}]


def test_blocks_depend_on_the_size_of_the_source_only_and_stay_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    for size, step in ((1000, 1000), (40 * 2**20, 40 * 2**14), (2**30, LARGEST_BLOCK)):
        with path.open("wb") as stream:
            stream.write(b"a\n")
            stream.truncate(size)
        blocks = opened(path, cache=tmp_path).blocks
        assert blocks[0].stop == step
        assert blocks[-1].stop == size


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_the_first_rows_are_those_over_all_files(tmp_path: Path, name: str) -> None:
    records = [{"text": str(number)} for number in range(5)]
    if name.endswith("jsonl"):
        (tmp_path / name).write_text("\n".join(map(json.dumps, records)).replace("\n", "\n\n"))
    elif name.endswith("csv"):
        (tmp_path / name).write_text("text\n" + "\n".join(record["text"] for record in records))
    else:
        pa.parquet.write_table(pa.Table.from_pylist(records), tmp_path / name)
    (tmp_path / "b.jsonl").write_text('{"text": "5"}\n{"text": "6"}\n')
    for most in (1, 4, 5, 6, 7, 9):
        source = opened(tmp_path, cache=tmp_path / "cache", num_samples=most)
        assert rows(source) == [{"text": str(number)} for number in range(min(most, 7))]
    assert opened(tmp_path, cache=tmp_path / "cache", num_samples=4).identity() != source.identity()


def test_a_list_of_sources_gives_each_file_the_weight_of_its_source(tmp_path: Path) -> None:
    for name in ("a/1.txt", "a/2.txt", "b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    parts = (
        WeightedSource(source=str(tmp_path / "b.txt"), weight=0.5),
        WeightedSource(source=str(tmp_path / "a"), weight=2),
    )
    source = open_source(DataSettings(source=parts), cache=tmp_path)
    assert [row["text"] for row in source.head()] == ["b.txt", "a/1.txt", "a/2.txt"]
    assert source.weights == (0.5, 2, 2)


def test_the_identity_follows_the_content_and_not_the_name_or_the_time_of_a_small_file(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_text('{"text": "a"}')
    second.write_text('{"text": "a"}')
    os.utime(second, ns=(1, 1))
    assert opened(first, cache=tmp_path).identity() == opened(second, cache=tmp_path).identity()
    second.write_text('{"text": "b"}')
    assert opened(first, cache=tmp_path).identity() != opened(second, cache=tmp_path).identity()


def test_a_large_file_is_another_one_when_its_time_or_its_end_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a" * (5 * 2**20))
    os.utime(path, ns=(1, 1))
    before = opened(path, cache=tmp_path).identity()
    assert opened(path, cache=tmp_path).identity() == before
    os.utime(path, ns=(2, 2))
    assert opened(path, cache=tmp_path).identity() != before
    path.write_bytes(b"a" * (5 * 2**20 - 1) + b"b")
    os.utime(path, ns=(1, 1))
    assert opened(path, cache=tmp_path).identity() != before


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet"])
def test_the_digest_of_a_block_changes_with_its_rows_only(tmp_path: Path, name: str) -> None:
    def source(texts: list[str]) -> Files:
        if name.endswith("parquet"):
            pa.parquet.write_table(pa.table({"text": texts}), tmp_path / name)
        else:
            (tmp_path / name).write_text("\n".join(json.dumps({"text": text}) for text in texts))
        return opened(tmp_path / name, cache=tmp_path)

    texts = [f"{number:0>8}" * 100 for number in range(3000)]
    before = [source(texts).digest(block) for block in source(texts).blocks]
    after = [source([*texts[:-1], "x" * 800]).digest(block) for block in source(texts).blocks]
    assert len(before) > 2
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]


@pytest.mark.parametrize("name", ["d.parquet", "d.arrow", "d.jsonl.gz", "d.json.gz", "d.csv.gz", "d.parquet.gz"])
def test_a_file_that_cannot_be_read_at_all_is_refused_at_once(tmp_path: Path, name: str) -> None:
    torn = gzip.compress(os.urandom(5000))[:3000]
    (tmp_path / name).write_bytes(torn if name.endswith(".gz") else b"PAR1 no table")
    with pytest.raises(DataError, match=name):
        opened(tmp_path / name, cache=tmp_path / "cache")


@pytest.mark.parametrize("parse", [json_row])
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")) | st.integers() | st.none()
    )
)
@quick
def test_a_line_of_json_is_the_object_it_was_written_from(parse: Any, row: dict[str, Any]) -> None:
    assert parse(json.dumps(row)) == parse(f" {json.dumps(row, ensure_ascii=False)}\t\r") == row
