"""lft data prepare: the tokens of a run, made ahead of it."""

from pathlib import Path
from typing import Any

import click

from lft.cli.lines import echo_lines
from lft.cli.options import data_options, settings_from
from lft.cli.preparing import prepare_here
from lft.data.prepare import MOST_LISTED


@click.command("prepare")
@data_options
@click.option("--procs", metavar="N", type=click.IntRange(min=1), help="Processes; default: the cores allowed.")
@click.option("--rehash", is_flag=True, help="Read all bytes of the data again before the cache is believed.")
def command(
    run_file: Path | None, demo: bool, sets: tuple[str, ...], procs: int | None, rehash: bool, **flags: Any
) -> None:
    """Make the tokens of a run ahead of it, on all cores, and keep them in the cache.

    Settings come from RUN_FILE (or ./lft.yaml), then from the options. Interrupted, it goes on where it stopped when it is
    typed again; runs that start meanwhile share its work.

    \b
    lft data prepare run.yaml
    lft data prepare --model ./model --dataset "chats/*.jsonl.gz" --procs 8
    """
    prepared = prepare_here(settings_from(run_file, demo, sets, flags), processes=procs, rehash=rehash)
    for line in prepared.manifest.words:
        echo_lines([f"  {line}"])
    left_out = prepared.manifest.bad
    for file, where, problem in left_out[:MOST_LISTED]:
        echo_lines([f"  left out   {prepared.source.place(file, where)}  {problem}"])
    if len(left_out) > MOST_LISTED:
        click.echo(f"  left out   {len(left_out) - MOST_LISTED:,} more bad rows")
    click.echo(f"  cache      {prepared.folder}")
