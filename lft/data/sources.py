"""Opening a source: local files, folders and patterns, data sets on the Hub, a list of them, or a datasets.Dataset."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lft.core.errors import DataError
from lft.core.paths import data_kind, is_zipped, looks_local, source_files, source_problem
from lft.core.settings import DataSettings
from lft.data.data_file import DataFile
from lft.data.example import BadRow, Row
from lft.data.hub import hub_file, streamed_file
from lft.data.line_file import LineFile, UnpackedFile, json_row, text_row
from lft.data.source import Block
from lft.data.spool import spooled
from lft.data.table_file import ArrowFile, DatasetFile, ParquetFile

if TYPE_CHECKING:
    from datasets import Dataset

SMALLEST_BLOCK, LARGEST_BLOCK = 512 * 2**10, 8 * 2**20
"""In bytes: some 0.1 s of tokenizing, so that starting a block costs nothing beside it; and little enough to hold in memory."""
BLOCKS = 64
"""In between, so many: a source of a few MiB still has work for every rank, and no rank waits long for the last."""
HEAD_ROWS, HEAD_OF_ALL = 1000, 10_000
"""Rows of each file looked at for the format, and of all files together, though at least one of each."""


def open_source(data: DataSettings, *, cache: Path, rows_needed: int | None = None) -> "Files":
    """The rows that the settings mean, ready to be read in blocks; what cannot be cut into blocks is spooled to `cache`.

    `rows_needed` is how many rows a run can use; only they are read of a Hub data set with data.streaming.
    Raises DataError, naming the file or the Hub data set, for what is not there, cannot be read at all or holds no rows.
    """
    files: list[DataFile] = []
    weights: list[float] = []
    for source in data.sources:
        opened = list(_open(source.source, data, cache, rows_needed))
        files += opened
        weights += [source.weight] * len(opened)
    return Files(files, weights, data.num_samples)


def dataset_source(dataset: "Dataset", columns: Sequence[str] | None = None) -> "Files":
    """A datasets.Dataset; its identity is the content of `columns`, or of all. Raises DataError where it has no rows."""
    return Files([DatasetFile(dataset.select_columns(list(columns)) if columns else dataset)], [1.0])


class Files:
    """A Source made of files, in their order; with `most_rows`, of their first rows only."""

    def __init__(self, files: Sequence[DataFile], weights: Sequence[float], most_rows: int | None = None) -> None:
        self._files: list[DataFile] = []
        self._ends: list[int] = []
        for file in files:
            if most_rows == 0:
                break
            end, rows = file.end_of(1 if most_rows is None else most_rows)
            if rows == 0:
                raise DataError(f"{file.name}  holds no rows")
            self._files.append(file)
            self._ends.append(file.size if most_rows is None else end)
            most_rows = most_rows and most_rows - rows
        self.weights = tuple(weights[: len(self._files)])
        self.names = tuple(file.name for file in self._files)

    @cached_property
    def blocks(self) -> Sequence[Block]:
        """Blocks of about a BLOCKS-th of all bytes, within the bounds."""
        total = sum(_bytes_up_to(file, end) for file, end in zip(self._files, self._ends, strict=True))
        block_bytes = min(max(total // BLOCKS, SMALLEST_BLOCK), LARGEST_BLOCK)
        blocks = []
        for number, (file, end) in enumerate(zip(self._files, self._ends, strict=True)):
            step = max(1, block_bytes * file.size // max(file.byte_size, 1))
            blocks += [Block(number, start, min(start + step, end)) for start in range(0, end, step)]
        return blocks

    def head(self) -> list[Row]:
        """The first rows of every file that can be read."""
        return self._head

    @cached_property
    def _head(self) -> list[Row]:
        each = min(HEAD_ROWS, max(1, HEAD_OF_ALL // len(self._files)))
        blocks = groupby(self.blocks, key=lambda block: block.file)
        return [row for _, blocks_of_file in blocks for row in islice(self._good_rows(blocks_of_file), each)]

    def read(self, block: Block) -> Iterator[tuple[int, Row | BadRow]]:
        """As Source.read."""
        return self._files[block.file].read(block.start, block.stop)

    def place(self, file: int, where: int) -> str:
        """As Source.place."""
        return self._files[file].place(where)

    def identity(self) -> list[Any]:
        """Of each file, and how much of it is used."""
        return [[*file.identity(), end] for file, end in zip(self._files, self._ends, strict=True)]

    def digest(self, block: Block) -> str:
        """As Source.digest."""
        return self._files[block.file].digest(block.start, block.stop)

    def _good_rows(self, blocks: Iterable[Block]) -> Iterator[Row]:
        return (row for block in blocks for _, row in self.read(block) if not isinstance(row, BadRow))


def _open(source: str, data: DataSettings, cache: Path, rows_needed: int | None) -> Iterator[DataFile]:
    if looks_local(source):
        problem = source_problem(source)
        if problem:
            raise DataError(problem)
        yield from (_open_file(path, cache) for path in source_files(source))
    elif data.streaming:
        rows = min((rows for rows in (data.num_samples, rows_needed) if rows is not None), default=None)
        if rows is None:
            raise DataError(
                f'data set "{source}" is to be streamed, and nothing says how many rows are needed',
                next_step="add --set training.max_steps=1000, or --set data.num_samples=10000",
            )
        yield streamed_file(source, data, rows, cache)
    else:
        yield hub_file(source, data)


def _open_file(path: Path, cache: Path) -> DataFile:
    kind = data_kind(path)
    try:
        if kind in (".json", ".csv"):
            return UnpackedFile(spooled(path, cache), path)
        plain = spooled(path, cache) if is_zipped(path) else path
        if kind == ".parquet":
            return ParquetFile(plain, path)
        if kind == ".arrow":
            return ArrowFile(plain, path)
        return LineFile(plain, text_row if kind == ".txt" else json_row, path)
    except OSError as error:
        raise DataError(f"{path}  cannot be read: {error.strerror or error}") from None


def _bytes_up_to(file: DataFile, end: int) -> int:
    return file.byte_size * end // max(file.size, 1)
