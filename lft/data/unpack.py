"""JSON and CSV files written out as numbered lines, one row a line, without ever holding the file.

A numbered line is the number of the line or of the element, a space, and the row as a JSON object, or, as a JSON text, why
it cannot be read. Errors of a whole file are DataErrors whose message goes on from the file's name: `:3  is not JSON`.
"""

import codecs
import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator
from typing import IO, Any

from lft.core.errors import DataError
from lft.data.example import BadRow, Row
from lft.data.line_file import half_a_character, json_kind

MOST_CELL_LINES = 100
"""A quoted cell may hold line feeds; one that swallows more lines than this and never ends was not meant."""
PART_BYTES = 2**20
"""Of a JSON file held at a time, besides the element that is being read."""

LONGEST_LITERAL = 16
"""An error that stands further from the end of what is held is none that more text can heal: -Infinity has 9 letters, an
escaped surrogate pair 12."""

_encode = json.JSONEncoder(ensure_ascii=False).encode

Numbered = Iterable[tuple[int, Row | BadRow]]


def unpack_csv(packed: IO[bytes], plain: IO[bytes]) -> None:
    """Rows of texts, a null for each empty cell. Raises DataError for a column that is named twice."""
    with io.TextIOWrapper(packed, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
        _write(_csv_rows(text), plain)


def unpack_json(packed: IO[bytes], plain: IO[bytes]) -> None:
    """A list of records, element by element; a dict of columns, one key that holds records, or one record. Or JSON lines.

    All but a list and JSON lines is held whole while it is written out. Raises DataError.
    """
    text = _Text(packed)
    if not text.next():
        return
    if text.next() == "[":
        _write(((number, _record(value)) for number, value in enumerate(text.elements(), start=1)), plain)
        return
    value = text.value()
    if text.next() and type(value) is dict and text.line > 1:  # one object a line, under the other name
        _write(_more_values(value, text), plain)
        return
    text.end()
    _write(((number, _record(record)) for number, record in enumerate(_records_in(value), start=1)), plain)


def _write(rows: Numbered, plain: IO[bytes]) -> None:
    for number, row in rows:
        try:
            line = _encode(str(row) if isinstance(row, BadRow) else row).encode()
        except UnicodeEncodeError as error:
            line = _encode(str(half_a_character(error))).encode()
        plain.write(b"%d %s\n" % (number, line))


def _csv_rows(text: io.TextIOWrapper) -> Iterator[tuple[int, Row | BadRow]]:
    # one limit for the whole process; a cell of more than the usual 128 KiB is no mistake in a text
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(text, strict=True)
    names = _csv_names(reader)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if reader.line_num > line + MOST_CELL_LINES:
                raise DataError(
                    f":{line}  opens a quoted cell that is not closed before line {reader.line_num}: {error}",
                    next_step="close the quote; a quote inside of a cell is written twice",
                ) from None
            yield line, BadRow(f"is not CSV: {error}")
            continue
        if not cells:
            continue
        if len(cells) != len(names):
            yield line, BadRow(f"has {len(cells)} cells; {len(names)} are expected")
        elif any(map(_is_no_utf8, cells)):
            yield line, BadRow("is not UTF-8 text")
        else:
            yield line, {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _csv_names(reader: Any) -> list[str]:
    """The columns that the first line names. Raises DataError where it does not."""
    try:
        names: list[str] = next(reader, [])
    except csv.Error as error:
        raise DataError(f":1  is not CSV: {error}") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f":1  names a column twice: {', '.join(twice)}")
    if len(names) == 1 and (separators := [each for each in ";\t|" if each in names[0]]):
        shown = "tabs" if separators[0] == "\t" else separators[0]
        raise DataError(f":1  has one column, {names[0]!r}; columns are separated by commas, not by {shown}")
    if any(map(_is_no_utf8, names)):
        raise DataError(":1  is not UTF-8 text", next_step="write the file as UTF-8, for example with iconv -t UTF-8")
    return names


def _is_no_utf8(cell: str) -> bool:
    return not cell.isascii() and any("\udc80" <= letter <= "\udcff" for letter in cell)


def _record(value: Any) -> Row | BadRow:
    return value if type(value) is dict else BadRow(f"is a JSON {json_kind(value)}; an object with columns is expected")


def _more_values(first: Any, text: "_Text") -> Iterator[tuple[int, Row | BadRow]]:
    yield 1, _record(first)
    number = 1
    while text.next():
        number += 1
        yield number, _record(text.value())


def _records_in(value: Any) -> list[Any]:
    """Records out of a list of records, a dict of columns, or a dict with one key that holds either; or one record."""
    if type(value) is list:
        return value
    if type(value) is not dict:
        raise DataError(f"  is a JSON {json_kind(value)}; a list of objects is expected")
    columns = list(value.values())
    if columns and all(type(column) is list for column in columns):
        if len(columns) == 1 and columns[0] and type(columns[0][0]) is dict:
            return _records_in(columns[0])
        if len({len(column) for column in columns}) != 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in value.items())
            raise DataError(f"  has columns of different lengths: {lengths}")
        return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    holders = [name for name, inner in value.items() if type(inner) is list and inner and type(inner[0]) is dict]
    if len(holders) > 1:
        raise DataError(f"  has several keys that hold records: {', '.join(holders)}; one is expected")
    return _records_in(value[holders[0]]) if holders else [value]


class _Text:
    """JSON text read in parts: values one after the other, each as soon as it is whole."""

    def __init__(self, packed: IO[bytes]) -> None:
        self._packed = packed
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._held, self._at, self._is_all = "", 0, False
        self.line = 1

    def next(self) -> str:
        """The next character that is no white space, not taken yet; empty at the end."""
        while True:
            while self._at < len(self._held):
                letter = self._held[self._at]
                if letter not in " \t\r\n":
                    return letter
                self.line += letter == "\n"
                self._at += 1
            if not self._more():
                return ""

    def elements(self) -> Iterator[Any]:
        """The values of the list that begins here, to its end, behind which nothing may stand."""
        self._at += 1
        if self.next() == "]":
            self._at += 1
            return self.end()
        while True:
            yield self.value()
            letter = self.next()
            if letter not in (",", "]"):
                raise self._error("',' or ']' is expected" if letter else "the list has no end")
            self._at += 1
            if letter == "]":
                return self.end()

    def end(self) -> None:
        """Raises DataError where something follows."""
        if self.next():
            raise self._error("nothing is expected here")

    def value(self) -> Any:
        """The next value; parts are read until it is whole."""
        if not self.next():
            raise self._error("a value is expected")
        while True:
            try:
                value, end = self._json.raw_decode(self._held, self._at)
                # a number at the end of a part may go on in the next one; the decoder takes 1 out of "1e"
                if self._is_all or (end < len(self._held) and self._held[end] not in "0123456789.eE+-"):
                    break
            except json.JSONDecodeError as error:
                is_cut = error.pos > len(self._held) - LONGEST_LITERAL or error.msg.startswith("Unterminated string")
                if self._is_all or not is_cut:
                    self.line += self._held.count("\n", self._at, error.pos)
                    raise self._error(error.msg) from None
            except (ValueError, RecursionError) as error:
                raise DataError(f":{self.line}  cannot be read: {error}") from None
            self._more()
        self.line += self._held.count("\n", self._at, end)
        self._at = end
        return value

    def _more(self) -> bool:
        """Hold more text, at least as much again, so that a long value is not tried too often; False at the end."""
        if self._is_all:
            return False
        self._held, self._at = self._held[self._at :], 0
        part = self._packed.read(max(PART_BYTES, len(self._held)))
        self._is_all = not part
        try:
            self._held += self._decode.decode(part, final=self._is_all)
        except UnicodeDecodeError as error:
            line = self.line + self._held.count("\n") + part.count(b"\n", 0, error.start)
            next_step = "write the file as UTF-8, for example with iconv -t UTF-8"
            raise DataError(f":{line}  is not UTF-8 text", next_step=next_step) from None
        return True

    def _error(self, what: str) -> DataError:
        return DataError(f":{self.line}  is not JSON: {what}")
