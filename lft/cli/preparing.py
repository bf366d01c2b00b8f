"""The data of a run, made ready in this process and those it forks, for the verbs that look at data."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from lft.core.hardware import look_at_machine
from lft.core.rank import Rank
from lft.core.settings import ModelSettings, RunSettings
from lft.core.words import clock, counted
from lft.data.prepare import LoadTokenizer, Work, find_prepared, prepare
from lft.data.prepared import Prepared

SECONDS_BETWEEN_LINES = 10.0


def prepare_here(settings: RunSettings, *, processes: int | None = None, rehash: bool = False) -> Prepared:
    """The prepared data of a run: from the cache without any library that tokenizes, or made now on all cores.

    `rehash` reads all bytes of the data again before it believes the cache. What was made before an interruption stays.
    Raises DataError and PreflightError as the stage does.
    """
    if not rehash and (found := find_prepared(settings.model, settings.data)) is not None:
        say(f"data       {counted(found.manifest.rows, 'row')}, tokens found in the cache")
        return found
    started = time.monotonic()
    try:
        with _progress() as between:
            work = Work(Rank(), say, processes or look_at_machine().cpu_cores, between)
            made = prepare(settings.model, settings.data, tokenizer_of(settings.model), work, rehash=rehash)
    except KeyboardInterrupt:
        say("stopped    what is done stays in the cache; the same command goes on from there")
        raise
    say(f"data       {counted(made.manifest.rows, 'row')} in {clock(time.monotonic() - started)}")
    return made


def tokenizer_of(model: ModelSettings) -> LoadTokenizer:
    """How to load a model's tokenizer, in this process: the libraries that do it are imported when it is called."""

    def load() -> tuple[Any, int | None]:
        from lft.train.model import tokenizer_loader

        return tokenizer_loader(model, say)()

    return load


def say(line: str) -> None:
    """A line of the story, beside what the verb prints: to standard error, so that --json stays JSON."""
    click.echo(f"  {line}", err=True)


def told_progress(made: int, blocks: int, made_before: int, seconds: float) -> str:
    """How far it is; the time left is that of the blocks made since `seconds` ago."""
    line = f"tokenizing  {made:,} of {counted(blocks, 'block')}"
    if made == made_before:
        return line
    return f"{line}  eta {clock(seconds / (made - made_before) * (blocks - made))}"


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Where to tell how many blocks are there: one moving line on a terminal, elsewhere a line now and then."""
    from lft.cli.screen import LiveLines  # with Rich, which a cache that has everything need not wait for

    first: tuple[int, float] | None = None
    said = time.monotonic()
    with LiveLines() as live:

        def tell(made: int, blocks: int) -> None:
            nonlocal first, said
            now = time.monotonic()
            first = first or (made, now)
            line = told_progress(made, blocks, first[0], now - first[1])
            live.show([f"  {line}"])
            if not live.is_terminal and now - said >= SECONDS_BETWEEN_LINES:
                said = now
                say(line)

        yield tell
