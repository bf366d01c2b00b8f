"""Lines that fit a terminal: wrapped between words, what follows below what was said. Pure, but for echo_lines."""

import shutil
import sys
import textwrap
from collections.abc import Iterable

import click

COMMAND = "next"
"""The name of lines that hold what to type."""
NARROWEST_TEXT = 20
"""Columns: what is narrower is left to the terminal."""


def hanging(line: str, width: int) -> list[str]:
    """A line in parts of at most `width` columns, the later ones indented to where its text begins.

    `  note       text` has its text behind the name. Words, such as paths, are never cut, and commands to copy stay whole.
    """
    if line.split("  ", 3)[1:2] == [COMMAND]:
        return [line]
    return hanging_from(line, text_column(line), width)


def hanging_from(line: str, column: int, width: int) -> list[str]:
    """The same where the text is known to begin at `column`; on narrow terminals it hangs less."""
    if len(line) <= width:
        return [line]
    start = len(line) - len(line.lstrip())
    indent = column if width - column >= NARROWEST_TEXT else start + 2
    head = line[:column]
    return textwrap.wrap(
        line[column:],
        max(width, NARROWEST_TEXT),
        initial_indent=head,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def text_column(line: str) -> int:
    """Where the text of `  name       text` begins; without such a name, where the line does."""
    start = len(line) - len(line.lstrip())
    name, gap, rest = line[start:].partition("  ")
    if gap and rest.strip() and len(name) <= 14:
        return len(line) - len(rest.lstrip())
    return start


def echo_lines(lines: Iterable[str], *, err: bool = False) -> None:
    """Print lines, wrapped on a terminal; anywhere else as they are, one a line, for programs to read."""
    stream = sys.stderr if err else sys.stdout
    width = shutil.get_terminal_size().columns if stream.isatty() else 0
    for text in lines:
        for line in text.split("\n"):
            click.echo("\n".join(hanging(line, width)) if width else line, err=err)
