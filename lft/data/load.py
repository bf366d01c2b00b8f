"""All rows of a source as a datasets.Dataset, for callers who want to look at them or change them.

The rows are written to the cache as Arrow and memory-mapped, so that memory stays flat. They are read twice: once for the
types of the columns, and once to write them; CSV once more before, to see which columns are numbers.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lft.core.errors import DataError
from lft.core.paths import data_kind, looks_local
from lft.core.settings import DataSettings
from lft.data.bad_rows import bad_rows_error, find_bad_rows
from lft.data.example import BadRow, Row
from lft.data.formats import COMMON_NAMES
from lft.data.hub import load_hub
from lft.data.sources import Files, open_source
from lft.data.spool import spool
from lft.data.table_file import BATCH_ROWS

if TYPE_CHECKING:
    from datasets import Dataset

INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
DECIMAL = re.compile(r"-?\d+(\.\d*)?([eE][+-]?\d+)?")
Number = type[int] | type[float]


def load_rows(data: DataSettings, *, cache: Path) -> "Dataset":
    """The rows of a source, at most data.num_samples, with a column for every key; a missing one is null.

    Columns of CSV are numbers where every cell is one and the name is not that of a text; in columns that ask or answer by
    their name, numbers are texts. Raises DataError with the file, line or Hub name and what was expected.
    """
    from datasets import Dataset

    if isinstance(data.source, str) and not looks_local(data.source) and not data.streaming:
        rows = load_hub(data.source, data)
        return rows if data.num_samples is None else rows.select(range(min(data.num_samples, len(rows))))
    source = open_source(data, cache=cache)
    if data.on_bad_row == "error":
        bad = find_bad_rows(source, None)
        if bad.found:
            raise bad_rows_error(source, bad)

    numbers = _number_columns(source)

    def write(target: Path) -> None:
        schema = _schema(source, numbers)
        with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, schema) as stream:
            for _, rows in _chunks(source, numbers):
                columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
                stream.write_table(pa.Table.from_arrays(columns, schema=schema))

    return Dataset.from_file(str(spool(cache, ["rows", source.identity()], ".arrow", write)))


def _chunks(source: Files, numbers: dict[str, Number]) -> Iterator[tuple[str, list[Row]]]:
    """Rows of one file at a time, numbers and texts made what their column is; bad ones are left out."""
    for block in source.blocks:
        name = source.names[block.file]
        is_csv = data_kind(Path(name)) == ".csv"
        rows = [row for _, row in source.read(block) if not isinstance(row, BadRow)]
        for start in range(0, len(rows), BATCH_ROWS):
            chunk = rows[start : start + BATCH_ROWS]
            yield (
                name,
                [{key: _value(key, value, numbers if is_csv else {}) for key, value in row.items()} for row in chunk],
            )


def _value(name: str, value: Any, numbers: dict[str, Number]) -> Any:
    if name.lower() in COMMON_NAMES:
        return json.dumps(value) if isinstance(value, int | float) else value
    return numbers[name](value) if name in numbers and value is not None else value


def _number_columns(source: Files) -> dict[str, Number]:
    """The columns of CSV files all of whose cells are numbers."""
    kinds: dict[str, Number | None] = {}
    for block in source.blocks:
        if data_kind(Path(source.names[block.file])) == ".csv":
            for _, row in source.read(block):
                if not isinstance(row, BadRow):
                    for name, cell in row.items():
                        if cell is not None and kinds.get(name, int) is not None:
                            kinds[name] = _number(cell, kinds.get(name))
    return {name: kind for name, kind in kinds.items() if kind is not None and name.lower() not in COMMON_NAMES}


def _number(cell: str, before: Number | None) -> Number | None:
    if before is not float and INTEGER.fullmatch(cell):
        return int
    return float if DECIMAL.fullmatch(cell) and not re.match(r"-?0\d", cell) else None


def _schema(source: Files, numbers: dict[str, Number]) -> pa.Schema:
    """The types of all columns. Raises DataError where one mixes types."""
    schema = pa.schema([])
    for name, rows in _chunks(source, numbers):
        columns = list(dict.fromkeys(key for row in rows for key in row))
        found = pa.schema({column: _type(column, [row.get(column) for row in rows], name) for column in columns})
        try:
            schema = pa.unify_schemas([schema, found], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            names = ", ".join(source.names[:5])
            raise DataError(f"{names}  the rows have columns of different types: {error}") from None
    return schema


def _type(column: str, values: list[Any], name: str) -> pa.DataType:
    try:
        return pa.array(values).type
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        kinds = ", ".join(dict.fromkeys(type(value).__name__ for value in values if value is not None))
        raise DataError(
            f'{name}  column "{column}" mixes types, or holds a number of more than 64 bits: {kinds}'
        ) from None
