"""Tables of which any range of rows can be read alone: Parquet, Arrow (file or stream), and a datasets.Dataset.

Only a batch of rows is ever held: Arrow files are memory-mapped, and the row groups of Parquet are decoded as they are read.
"""

import json
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet
import xxhash

from lft.core.errors import DataError
from lft.data.example import BadRow, Row
from lft.data.identity import file_identity, texts_digest

if TYPE_CHECKING:
    from datasets import Dataset

BATCH_ROWS = 1024
"""Rows held at a time; at a few KiB a row some MiB."""
LEAST_ROW_BYTES = 64
"""What is written once for many rows (dictionaries, runs) makes files smaller, and the work of a row none."""


class TableFile(ABC):
    """Rows by number."""

    def __init__(self, name: str, size: int, byte_size: int) -> None:
        self.name, self.size = name, size
        self.byte_size = max(byte_size, size * LEAST_ROW_BYTES)

    @abstractmethod
    def tables(self, start: int, stop: int) -> Iterator[pa.Table]:
        """The rows of a range in tables of at most BATCH_ROWS rows. Raises DataError."""

    @abstractmethod
    def identity(self) -> list[Any]:
        """As DataFile.identity."""

    def read(self, start: int, stop: int) -> Iterator[tuple[int, Row | BadRow]]:
        """As DataFile.read."""
        for table in self.tables(start, stop):
            for row in rows_of(table):
                yield start, row
                start += 1

    def end_of(self, rows: int) -> tuple[int, int]:
        """As DataFile.end_of."""
        end = min(rows, self.size)
        return end, end

    def place(self, where: int) -> str:
        """As DataFile.place."""
        return f"{self.name} row {where + 1}"

    def digest(self, start: int, stop: int) -> str:
        """Of the values, column by column in batches, however the table is chunked."""
        digest = xxhash.xxh3_128()
        for table in self.tables(start, stop):
            digest.update(json.dumps(table.column_names).encode())
            for column in table.columns:
                digest.update(_column_digest(column))
        return digest.hexdigest()


class ParquetFile(TableFile):
    """One .parquet file; `origin` is the file it was unpacked from, if it was."""

    def __init__(self, path: Path, origin: Path | None = None) -> None:
        self._path = origin or path
        self._open = _opened(self._path, "Parquet", lambda: pa.parquet.ParquetFile(path, memory_map=True))
        metadata = self._open.metadata
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        self._ends = list(accumulate(group.num_rows for group in groups))
        self._at: tuple[int, int, Iterator[pa.RecordBatch]] | None = None
        super().__init__(self._path.name, metadata.num_rows, sum(group.total_byte_size for group in groups))

    def tables(self, start: int, stop: int) -> Iterator[pa.Table]:
        """As TableFile.tables."""
        while start < stop:
            group = bisect_right(self._ends, start)
            behind, batches = self._batches_from(group, start)
            end = min(stop, self._ends[group])
            while start < end:
                batch = _opened(self._path, "Parquet", lambda batches=batches: next(batches))  # type: ignore[misc]
                first, behind = behind, behind + batch.num_rows
                if start < behind:
                    yield pa.Table.from_batches([batch.slice(start - first, min(behind, end) - start)])
                    start = min(behind, end)
            # what is asked for next mostly follows: then the group is not decoded from its start again
            self._at = (group, first, chain([batch], batches))

    def identity(self) -> list[Any]:
        """As DataFile.identity."""
        return ["parquet", *file_identity(self._path)]

    def _batches_from(self, group: int, row: int) -> tuple[int, Iterator[pa.RecordBatch]]:
        """The number of the first row of the batches that come, which is at most `row`; and they."""
        left, self._at = self._at, None  # for one reader only
        if left and left[0] == group and left[1] <= row:
            return left[1:]
        begin = self._ends[group - 1] if group else 0
        return begin, self._open.iter_batches(batch_size=BATCH_ROWS, row_groups=[group])


class ArrowFile(TableFile):
    """One .arrow file, in the file format (record batches read as asked for) or as a stream (memory-mapped whole).

    `origin` is the file it was unpacked from, or `name` the data set on the Hub.
    """

    def __init__(self, path: Path, origin: Path | None = None, name: str = "") -> None:
        self._path = origin or path
        self._batches = _opened(self._path, "Arrow", lambda: _record_batches(path))
        self._ends = self._batches.ends
        super().__init__(name or self._path.name, self._ends[-1] if self._ends else 0, path.stat().st_size)

    def tables(self, start: int, stop: int) -> Iterator[pa.Table]:
        """As TableFile.tables."""
        while start < stop:
            number = bisect_right(self._ends, start)
            first = self._ends[number - 1] if number else 0
            end = min(stop, self._ends[number])
            batch = _opened(self._path, "Arrow", lambda number=number: self._batches[number])  # type: ignore[misc]
            for begin in range(start, end, BATCH_ROWS):
                yield pa.Table.from_batches([batch.slice(begin - first, min(BATCH_ROWS, end - begin))])
            start = end

    def identity(self) -> list[Any]:
        """As DataFile.identity."""
        return ["arrow", *file_identity(self._path)]


class DatasetFile(TableFile):
    """A datasets.Dataset, in memory or loaded from the Hub; `named_by` names its content where it is known."""

    def __init__(self, dataset: "Dataset", name: str = "dataset", named_by: Sequence[Any] | None = None) -> None:
        self._rows = dataset.with_format("arrow")
        self._named_by = named_by
        all_rows = max(dataset.data.num_rows, 1)
        super().__init__(name, len(dataset), dataset.data.nbytes * len(dataset) // all_rows)

    def tables(self, start: int, stop: int) -> Iterator[pa.Table]:
        """As TableFile.tables."""
        for begin in range(start, stop, BATCH_ROWS):
            yield self._rows[begin : min(begin + BATCH_ROWS, stop)]

    def identity(self) -> list[Any]:
        """As DataFile.identity."""
        return ["dataset", *self._named_by] if self._named_by is not None else ["rows", self._digest]

    @cached_property
    def _digest(self) -> str:
        return self.digest(0, self.size)


def rows_of(table: pa.Table) -> list[Row]:
    """The rows of a small table."""
    columns = [column.to_pylist() for column in table.columns]
    names = table.column_names
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"the data names a column twice: {', '.join(twice)}", next_step="rename one of them")
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


class _RecordBatches:
    """The record batches of an Arrow file by number; `ends` are the row numbers behind each."""

    def __init__(self, get: Callable[[int], pa.RecordBatch], lengths: Iterator[int]) -> None:
        self._get, self.ends = get, list(accumulate(lengths))

    def __getitem__(self, number: int) -> pa.RecordBatch:
        return self._get(number)


def _record_batches(path: Path) -> _RecordBatches:
    mapped = pa.memory_map(str(path))
    if mapped.read(6) == b"ARROW1":
        reader = pa.ipc.open_file(mapped)
        return _RecordBatches(
            reader.get_batch, (reader.get_batch(number).num_rows for number in range(reader.num_record_batches))
        )
    mapped.seek(0)
    batches = list(pa.ipc.open_stream(mapped))  # views on the mapped file
    return _RecordBatches(batches.__getitem__, (batch.num_rows for batch in batches))


def _opened(path: Path, kind: str, attempt: Callable[[], Any]) -> Any:
    try:
        return attempt()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}  is not {kind}: {str(error).splitlines()[0]}") from None


def _column_digest(column: pa.ChunkedArray) -> bytes:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return texts_digest(column.combine_chunks())
    values = json.dumps(column.to_pylist(), ensure_ascii=False, sort_keys=True, default=str)
    return xxhash.xxh3_128_digest(values.encode(errors="surrogatepass"))
