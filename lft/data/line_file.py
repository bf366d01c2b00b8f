"""Plain text files of one row a line (.jsonl, .txt), of which any range of bytes can be read alone.

A line belongs to the range its first byte is in, so that ranges need no look at the file to be cut. Only line feeds end a
line, since JSON texts may hold other separators. Blank lines are no rows, and a byte order mark is no text.
"""

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import xxhash

from lft.core.errors import DataError
from lft.core.paths import data_kind
from lft.data.example import BadRow, Row
from lft.data.identity import file_identity

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
COUNTED_BYTES = 2**20

Parse = Callable[[str], Row]
"""A line to a row; raises BadRow."""


class LineFile:
    """One file, whose lines `parse` makes rows of; `origin` is the file it was unpacked from, if it was."""

    def __init__(self, path: Path, parse: Parse, origin: Path | None = None) -> None:
        self.path, self.origin = path, origin or path
        self.name = self.origin.name
        self._parse = parse

    @cached_property
    def size(self) -> int:
        """As DataFile.size."""
        return self.path.stat().st_size

    @property
    def byte_size(self) -> int:
        """As DataFile.byte_size."""
        return self.size

    def read(self, start: int, stop: int) -> Iterator[tuple[int, Row | BadRow]]:
        """As DataFile.read."""
        parse = self._parse
        where, content = self._lines_in(start, stop)
        for line in content.split(b"\n"):
            if line and not line.isspace():
                try:
                    yield where, parse(line.decode())
                except UnicodeDecodeError as error:
                    yield where, BadRow(f"is not UTF-8 text (byte {error.start + 1} of the line)")
                except BadRow as problem:
                    yield where, problem
            where += len(line) + 1

    def end_of(self, rows: int) -> tuple[int, int]:
        """As DataFile.end_of."""
        found = end = 0
        with self.path.open("rb") as stream:
            for line in stream:
                text = line if end else line.removeprefix(BYTE_ORDER_MARK)
                found += bool(text) and not text.isspace()
                end += len(line)
                if found == rows:
                    break
        return end, found

    def place(self, where: int) -> str:
        """As DataFile.place."""
        feeds, left = 0, where
        with self.path.open("rb") as stream:
            while left and (part := stream.read(min(left, COUNTED_BYTES))):
                feeds, left = feeds + part.count(b"\n"), left - len(part)
        return f"{self.name}:{feeds + 1}"

    def identity(self) -> list[Any]:
        """As DataFile.identity."""
        return [data_kind(self.origin), *file_identity(self.origin)]

    def digest(self, start: int, stop: int) -> str:
        """As DataFile.digest."""
        return xxhash.xxh3_128_hexdigest(self._lines_in(start, stop)[1])

    def _lines_in(self, start: int, stop: int) -> tuple[int, bytes]:
        """Position and bytes of the lines that begin in a range; the last one whole, however long."""
        try:
            with self.path.open("rb") as stream:
                if start == 0:
                    begin, content, first = 0, stream.read(stop), 0
                else:
                    stream.seek(start - 1)
                    content = stream.read(stop - start + 1)
                    first = content.find(b"\n") + 1  # the line before ends here, perhaps with the byte before the range
                    if first == 0:
                        return stop, b""
                    begin = start - 1
                if first < len(content) and not content.endswith(b"\n"):
                    content += stream.readline()
                if start == 0 and content.startswith(BYTE_ORDER_MARK):
                    first = len(BYTE_ORDER_MARK)
        except OSError as error:
            raise DataError(f"{self.path}  cannot be read: {error.strerror or error}") from None
        return begin + first, content[first:]


class UnpackedFile(LineFile):
    """The numbered lines that unpack.py makes; its rows are named by the numbers they had in the file they are from."""

    def __init__(self, path: Path, origin: Path) -> None:
        super().__init__(path, numbered_row, origin)

    def place(self, where: int) -> str:
        """As DataFile.place."""
        number = self._lines_in(where, where + 1)[1].partition(b" ")[0].decode()
        return f"{self.name}:{number}" if data_kind(self.origin) == ".csv" else f"{self.name} element {number}"


def numbered_row(line: str) -> Row:
    """A line that unpack.py made. Raises BadRow for a row that could not be read."""
    value, _ = _decode(line, line.index(" ") + 1)
    if type(value) is str:
        raise BadRow(value)
    row: Row = value
    return row


def text_row(line: str) -> Row:
    """A line of a .txt file."""
    return {"text": line.removesuffix("\r")}


_decode = json.JSONDecoder().raw_decode  # without the two searches for white space that json.loads makes, 0.6 us a row


def json_row(line: str) -> Row:
    """A line of a .jsonl file. Raises BadRow for what is no object, or holds what no text can."""
    try:
        value, end = _decode(line)
        if end != len(line) and not line[end:].isspace():
            raise json.JSONDecodeError("Extra data", line, end)
    except json.JSONDecodeError:
        value = _with_white_space(line)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, brackets 100,000 deep
        raise BadRow(f"cannot be read: {error}") from None
    if type(value) is not dict:
        raise BadRow(f"is a JSON {json_kind(value)}; an object with columns is expected")
    if "\\ud" in line or "\\uD" in line:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise half_a_character(error) from None
    return value


def half_a_character(error: UnicodeEncodeError) -> BadRow:
    """What is wrong with a row where half a character (a lone surrogate), which no encoding can hold, was escaped."""
    return BadRow(f"holds half a character, \\u{ord(error.object[error.start]):04x}")


def json_kind(value: object) -> str:
    """What JSON calls a value."""
    names = {list: "array", str: "string", bool: "truth value", int: "number", float: "number", dict: "object"}
    return names.get(type(value), "null")


def _with_white_space(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise BadRow(f"is not JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise BadRow(f"cannot be read: {error}") from None
