"""What a source knows of each of its files, whatever their format."""

from collections.abc import Iterator
from typing import Any, Protocol

from lft.data.example import BadRow, Row


class DataFile(Protocol):
    """Rows in order, of which any range can be read. Positions are bytes in text formats and row numbers in tables."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def size(self) -> int:
        """The position behind the last row."""

    @property
    def byte_size(self) -> int:
        """About how many bytes of content all rows have together."""

    def read(self, start: int, stop: int) -> Iterator[tuple[int, Row | BadRow]]:
        """The rows that begin in a range, each with its position. Raises DataError where the file cannot be read."""

    def end_of(self, rows: int) -> tuple[int, int]:
        """The position behind the first `rows` rows, and how many rows there are up to it, fewer in a short file."""

    def place(self, where: int) -> str:
        """The row at a position, for people: `data.jsonl:17`."""

    def identity(self) -> list[Any]:
        """What names the content, as JSON values."""

    def digest(self, start: int, stop: int) -> str:
        """Of all that `read` reads of a range."""
