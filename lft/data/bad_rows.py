"""Rows that cannot be used: all found at once, each named with its place."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from lft.core.errors import DataError
from lft.core.words import counted
from lft.data.example import BadRow
from lft.data.formats import RowFormat
from lft.data.source import Source

NEXT_STEP = "mend them, or leave them out: --set data.on_bad_row=skip"


class BadRows(NamedTuple):
    """What was found in a source."""

    found: tuple[tuple[int, int, str], ...]
    """File, where and what is wrong of each, in the order of the rows."""

    may_be_more: bool
    """The source was not looked at to its end."""


def find_bad_rows(source: Source, row_format: RowFormat | None, most: int = 20) -> BadRows:
    """The first `most` rows that cannot be read or, with a format, be used as it says. Reads, and tokenizes nothing."""
    found = list(islice(_bad_rows(source, row_format), most + 1))
    return BadRows(tuple(found[:most]), may_be_more=len(found) > most)


def bad_rows_error(source: Source, bad: BadRows) -> DataError:
    """The error that lists them: `support.jsonl:17  answer is null; text is expected`."""
    lines = "".join(f"\n  {source.place(file, where)}  {problem}" for file, where, problem in bad.found)
    count = f"more than {len(bad.found)} rows" if bad.may_be_more else counted(len(bad.found), "row")
    return DataError(f"{count} of the data cannot be used{lines}", next_step=NEXT_STEP)


def _bad_rows(source: Source, row_format: RowFormat | None) -> Iterator[tuple[int, int, str]]:
    for block in source.blocks:
        for where, row in source.read(block):
            if isinstance(row, BadRow):
                yield block.file, where, str(row)
            elif row_format is not None:
                try:
                    row_format.example(row)
                except BadRow as problem:
                    yield block.file, where, str(problem)
