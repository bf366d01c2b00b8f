"""What the stages behind need of a source of rows, whatever it is made of."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from lft.data.example import BadRow, Row


class Block(NamedTuple):
    """Consecutive rows of one file: what one rank reads and tokenizes at a time."""

    file: int
    """Number of the file within the source."""

    start: int
    """First byte (text formats; a line belongs to the block its first byte is in) or first row (tables)."""

    stop: int
    """The byte or row behind the last one."""


class Source(Protocol):
    """Rows cut into blocks that depend on the source alone, never on the number of ranks."""

    @property
    def blocks(self) -> Sequence[Block]:
        """All blocks in the order of the rows."""

    @property
    def weights(self) -> Sequence[float]:
        """By number of file: how often an epoch uses each of its rows."""

    def head(self) -> list[Row]:
        """The first rows (at most 1,000) of every file, for recognising the format; rows that cannot be read are left out."""

    def read(self, block: Block) -> Iterator[tuple[int, Row | BadRow]]:
        """Where each row is (byte or row number within its file), and the row, or why it cannot be read."""

    def place(self, file: int, where: int) -> str:
        """`data.jsonl:17`, for people."""

    def identity(self) -> list[Any]:
        """What names the content, as JSON values: for each file, size, time and sampled digests. Costs milliseconds."""

    def digest(self, block: Block) -> str:
        """The digest of all bytes of a block."""
