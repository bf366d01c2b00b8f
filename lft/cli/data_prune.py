"""lft data prune: freeing prepared data that has not been used for long."""

import re
import time

import click

from lft.core.rank import cache_folder
from lft.core.words import counted, data_size, duration
from lft.data.cache_entry import Entry, entries, free, to_free

UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
DEFAULT = "30d"


def seconds_of(_context: click.Context, _parameter: click.Parameter, text: str) -> float:
    """`30d`, `12h`: a length of time, in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *(s|min|h|d)", text)
    if found is None:
        raise click.BadParameter(
            f"{text!r} is no length of time; a number with s, min, h or d is expected, such as 30d"
        )
    return float(found[1]) * UNITS[found[2]]


@click.command("prune")
@click.option(
    "--older-than", "unused", metavar="TIME", callback=seconds_of, default=DEFAULT, help="Not used for so long: 30d."
)
@click.option("--all", "everything", is_flag=True, help="Whatever is not in use.")
@click.option("--dry-run", is_flag=True, help="Say what would be freed.")
def command(unused: float, everything: bool, dry_run: bool) -> None:
    """Free prepared data that has not been used for long. What a run has open stays; models are left alone.

    \b
    lft data prune --older-than 7d
    lft data prune --all --dry-run
    """
    cache, now = cache_folder(), time.time()
    found = entries(cache)
    old = to_free(found, 0.0 if everything else unused, now)
    freed = [entry for entry in old if dry_run or free(entry)]
    for entry in found:
        click.echo(told(entry, now, is_freed=entry in freed, dry_run=dry_run))
    kept = len(found) - len(freed)
    word = "would be freed" if dry_run else "freed"
    total = data_size(sum(entry.size_bytes for entry in freed))
    click.echo(f"  {total} {word} in {cache}; {counted(kept, 'folder')} kept")


def told(entry: Entry, now: float, *, is_freed: bool, dry_run: bool = False) -> str:
    """One line about an entry."""
    word = "kept" if not is_freed else "old" if dry_run else "freed"
    facts = [data_size(entry.size_bytes), f"used {duration(now - entry.last_used)} ago"]
    facts += [] if entry.is_finished else ["unfinished"]
    facts += ["in use"] if entry.is_in_use else []
    return f"  {word:<5}  {entry.name}  {', '.join(facts)}"
