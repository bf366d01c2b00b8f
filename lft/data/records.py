"""Reading local data files into Arrow tables, with file and line in every complaint.

JSON is read with the standard library, because a reader that guesses types turns text that looks like a date into a time
stamp; CSV and Parquet with pyarrow.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from lft.core.errors import DataError
from lft.core.paths import data_kind
from lft.data.columns import COMMON_NAMES

Record = dict[str, Any]


def read_table(path: Path, limit: int | None = None) -> pa.Table:
    """The rows of one file (.json, .jsonl, .csv, .txt, .parquet, each also .gz); at most about `limit` of them.

    Raises DataError, naming the file and, for text formats, the line.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.name.lower().endswith(".gz") else path.read_bytes()
        table = _READERS[data_kind(path)](content, path, limit)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError, RecursionError, pa.ArrowException) as error:
        raise DataError(f"{path}  cannot be read: {error}") from None
    if table.num_rows == 0:
        raise DataError(f"{path}  holds no rows")
    return table


def table_of(records: list[Record], path: Path) -> pa.Table:
    """A table with every key that any record has; a missing one is null. Raises DataError for mixed types.

    In columns that ask or answer by their name, numbers are texts.
    """
    columns: dict[str, list[Any]] = {name: [] for record in records for name in record}
    for record in records:
        for name, values in columns.items():
            values.append(_as_text(record.get(name)) if name.lower() in COMMON_NAMES else record.get(name))
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            kinds = {
                type(value).__name__: index + 1
                for index, value in reversed(list(enumerate(values)))
                if value is not None
            }
            first = ", ".join(f"{kind} in row {row}" for kind, row in sorted(kinds.items(), key=lambda item: item[1]))
            raise DataError(f'{path}  column "{name}" mixes types: {first}; one type is expected') from None
    return pa.table(arrays)


def _as_text(value: Any) -> Any:
    """A number where text belongs (`"answer": 4`) as it was written; anything else unchanged."""
    return json.dumps(value) if isinstance(value, int | float) else value


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}:{line}  is not UTF-8 text", next_step=f"iconv -t UTF-8 {path} > utf8{path.suffix}"
        ) from None


def _read_jsonl(content: bytes, path: Path, limit: int | None) -> pa.Table:
    records: list[Record] = []
    for number, line in _lines(_decoded(content, path)):
        if limit is not None and len(records) >= limit:
            break
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}  is not JSON: {error.msg} at column {error.colno}") from None
        except (ValueError, RecursionError) as error:  # a number of 5,000 digits, brackets 5,000 deep
            raise DataError(f"{path}:{number}  cannot be read: {error}") from None
        if not isinstance(value, dict):
            raise DataError(f"{path}:{number}  is a JSON {_json_kind(value)}; an object with columns is expected")
        records.append(value)
    return table_of(records, path)


def _read_json(content: bytes, path: Path, _limit: int | None) -> pa.Table:
    text = _decoded(content, path)
    if not text.strip():
        raise DataError(f"{path}  holds no rows")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and error.lineno > 1:  # one object a line, under the other name
            return _read_jsonl(content, path, _limit)
        raise DataError(f"{path}:{error.lineno}  is not JSON: {error.msg} at column {error.colno}") from None
    return table_of(_records_in(value, path), path)


def _records_in(value: Any, path: Path) -> list[Record]:
    """Records out of a list of records, a dict of columns, or a dict with one key that holds either; or one record."""
    if isinstance(value, list):
        for index, record in enumerate(value):
            if not isinstance(record, dict):
                raise DataError(f"{path}  element {index + 1} is a JSON {_json_kind(record)}; an object is expected")
        return value
    if not isinstance(value, dict):
        raise DataError(f"{path}  is a JSON {_json_kind(value)}; a list of objects is expected")
    columns = list(value.values())
    if columns and all(isinstance(column, list) for column in columns):
        if len(columns) == 1 and columns[0] and isinstance(columns[0][0], dict):
            return _records_in(columns[0], path)
        if len({len(column) for column in columns}) != 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in value.items())
            raise DataError(f"{path}  has columns of different lengths: {lengths}")
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    holders = [
        name for name, inner in value.items() if isinstance(inner, list) and inner and isinstance(inner[0], dict)
    ]
    if len(holders) == 1:
        return _records_in(value[holders[0]], path)
    if holders:
        raise DataError(f"{path}  has several keys that hold records: {', '.join(holders)}; one is expected")
    return [value]


def _read_txt(content: bytes, path: Path, limit: int | None) -> pa.Table:
    lines = [line for _, line in _lines(_decoded(content, path))]
    return pa.table({"text": pa.array(lines[:limit], pa.string())})


def _read_csv(content: bytes, path: Path, _limit: int | None) -> pa.Table:
    text = _decoded(content, path)
    if not text.strip():
        raise DataError(f"{path}  holds no rows")
    try:
        table = _parse_csv(text, {})
        # a date or a yes in a text stays the text it is: only numbers may be guessed
        guessed = {field.name: pa.string() for field in table.schema if not _may_be_guessed(field)}
        table = _parse_csv(text, guessed) if guessed else table
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}  is not CSV: {error}") from None
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise DataError(f"{path}:1  names a column twice: {', '.join(twice)}")
    return table


def _parse_csv(text: str, types: dict[str, pa.DataType]) -> pa.Table:
    return pa.csv.read_csv(
        pa.BufferReader(text.encode()),
        read_options=pa.csv.ReadOptions(use_threads=False),  # threads would lose the row's number in an error
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(strings_can_be_null=True, null_values=[""], column_types=types),
    )


def _may_be_guessed(column: pa.Field) -> bool:
    """Numbers may, but not in a column that asks or answers: 00420 is no 420."""
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return bool(pa.types.is_string(column.type) or (is_number and column.name.lower() not in COMMON_NAMES))


def _read_parquet(content: bytes, path: Path, _limit: int | None) -> pa.Table:
    try:
        return pa.parquet.read_table(pa.BufferReader(content))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}  is not Parquet: {error}") from None


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank; only line feeds end a line, since JSON texts may hold other separators."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _json_kind(value: Any) -> str:
    names = {list: "array", str: "string", bool: "truth value", int: "number", float: "number", dict: "object"}
    return names.get(type(value), "null")


_READERS: dict[str, Callable[[bytes, Path, int | None], pa.Table]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".txt": _read_txt,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
