"""What a terminal can do: consoles, lines that fit, text that replaces itself, waiting. Uses Rich, as present.py does."""

import io
import sys
from contextlib import suppress
from typing import IO, cast

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from lft.cli.lines import hanging
from lft.cli.verbosity import verbosity


def plain_console() -> Console:
    """Standard output, without guesses at what is a number or a smiley."""
    return Console(highlight=False, emoji=False)


class LastingOutput(io.TextIOBase):
    """Standard output that nobody has to read: a terminal that is closed, or a full disk, must not end a run."""

    def __init__(self) -> None:
        self._stream = sys.stdout  # that of now: while Rich shows progress, sys.stdout leads back to it

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Pass on what can be passed on."""
        with suppress(OSError):
            self._stream.flush()

    def isatty(self) -> bool:
        """As standard output is."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """As standard output has."""
        return self._stream.fileno()


def lasting_console() -> Console:
    """The same, for what a run says: it must not end because nobody reads it."""
    return Console(file=cast(IO[str], LastingOutput()), highlight=False, emoji=False)


class LiveLines:
    """Lines that replace each other in place on a terminal; anywhere else nothing is shown."""

    def __init__(self) -> None:
        console = plain_console()
        self.is_terminal = is_live(console)
        self._live = Live(console=console, transient=True, auto_refresh=False)

    def __enter__(self) -> "LiveLines":
        if self.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, lines: list[str]) -> None:
        """Show these lines instead of those before."""
        if self.is_terminal:
            parts = [part for line in lines for part in hanging(line, self._live.console.width)]
            self._live.update(Text("\n".join(parts)), refresh=True)


class Waiting:
    """`looking at ...`: in place on a terminal, gone when it is done; anywhere else a line; nothing if not `shown`."""

    def __init__(self, what: str, *, shown: bool = True) -> None:
        console = plain_console()
        self._line = f"  {what} ..." if shown and verbosity() != "quiet" else ""
        self._status = console.status(self._line, spinner="line") if self._line and is_live(console) else None

    def __enter__(self) -> None:
        if self._status is not None:
            self._status.start()
        elif self._line:
            click.echo(self._line)

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()


def show_line(console: Console, text: str, *, whole: bool = False) -> None:
    """A line; on a terminal wrapped between words, unless it is `whole`, to be copied."""
    parts = hanging(text, console.width) if is_live(console) and not whole else [text]
    console.print("\n".join(parts), markup=False, soft_wrap=True)


def show_choice(console: Console, name: str, value: str, reason: str) -> None:
    """`  name       value   reason`; on a terminal too narrow for both the reason stands below."""
    head = f"  {name:<10} "
    plain, gap = head + value, "   " if reason else ""
    if not is_live(console) or len(plain + gap + reason) <= console.width:
        rows = [(plain + gap, reason)]
    else:
        below = hanging(" " * len(head) + reason, console.width) if reason else []
        rows = [*((line, "") for line in hanging(plain, console.width)), *(("", line) for line in below)]
    for number, (plain, dim) in enumerate(rows):
        line = Text(plain).append(dim, style="dim")
        line.stylize("bold", 0, len(head) if number == 0 else 0)
        console.print(line, soft_wrap=True)


def is_live(console: Console) -> bool:
    """Whether a person watches, and lines may move: FORCE_COLOR makes no terminal of a log, and TERM=dumb has no moves."""
    return bool(console.is_terminal and not console.is_dumb_terminal and console.file.isatty())
