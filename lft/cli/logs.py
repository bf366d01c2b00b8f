"""lft logs: what the ranks print, and the errors in it."""

import time
from collections.abc import Iterator
from pathlib import Path

import click

from lft.cli.job_story import before_it_began
from lft.cli.run_argument import run_argument
from lft.core.errors import SettingsError
from lft.core.order import WorkerReport
from lft.core.run_dir import Attempt, RunDir
from lft.core.words import rank_names
from lft.launch.ending import first_line, told_place
from lft.launch.follow import existing_run, is_alive, read_failures, submitted_run
from lft.launch.logs import LogTail, folded_problems, ranks_with_log, start_of_last_lines

POLL_SECONDS = 0.2


@click.command("logs")
@run_argument()
@click.option("--rank", metavar="N|all", help="Whose log; 0 by default, with --errors all.")
@click.option(
    "--attempt", "number", metavar="K", type=click.IntRange(0), help="Of which attempt; the newest by default."
)
@click.option(
    "--lines", metavar="N", type=click.IntRange(1), default=200, show_default=True, help="Last lines of a log."
)
@click.option("--errors", is_flag=True, help="Only failures, errors and warnings; those of several ranks once.")
@click.option("--follow", is_flag=True, help="Go on until the run ends, also with its next attempt.")
def command(output_dir: Path, rank: str | None, number: int | None, lines: int, errors: bool, follow: bool) -> None:
    """Show what the ranks of the run in OUTPUT_DIR print.

    \b
    lft logs runs/support --rank all --errors
    """
    if errors and follow:
        raise click.UsageError("--errors and --follow exclude each other")
    waiting = submitted_run(output_dir)
    if waiting is not None:
        click.echo("\n".join(before_it_began(waiting, output_dir)))
        return
    run_dir = existing_run(output_dir)
    attempt = _attempt(run_dir, number)
    asked = _asked_rank(rank, default=None if errors else 0)
    if errors:
        _show_errors(attempt, asked)
        return
    tails = _Tails(attempt, asked, lines)
    if not tails.ranks() and not follow:
        raise SettingsError(
            [f"attempt {attempt.number} has no log of {'any rank' if asked is None else f'rank {asked}'}"]
        )
    if follow:
        _follow(run_dir, tails, asked, moves_on=number is None)
    else:
        tails.show_new(to_the_end=True)


def _attempt(run_dir: RunDir, number: int | None) -> Attempt:
    attempts = run_dir.attempts()
    if number is None:
        return attempts[-1]
    found = [attempt for attempt in attempts if attempt.number == number]
    if not found:
        have = ", ".join(str(attempt.number) for attempt in attempts)
        raise SettingsError([f"--attempt {number}  there is no such attempt; there are {have}"])
    return found[0]


def _asked_rank(text: str | None, default: int | None) -> int | None:
    """The rank asked for; None for all."""
    if text is None or text == "all":
        return default if text is None else None
    if not text.isdecimal():
        raise SettingsError([f"--rank {text}  a rank, counted from 0, or all is expected"])
    return int(text)


class _Tails:
    """The logs of one rank, or of all, of an attempt; those that appear later too."""

    def __init__(self, attempt: Attempt, asked: int | None, last_lines: int | None) -> None:
        self.attempt, self.asked = attempt, asked
        self._tails = {rank: LogTail(attempt.log(rank)) for rank in self.ranks()}
        if last_lines is not None:
            for tail in self._tails.values():
                tail.read_to = start_of_last_lines(tail.path, last_lines)

    def ranks(self) -> list[int]:
        """Those asked for that have a log."""
        return [rank for rank in ranks_with_log(self.attempt) if self.asked in (None, rank)]

    def show_new(self, *, to_the_end: bool = False) -> None:
        """Print what is new."""
        for rank in self.ranks():
            tail = self._tails.setdefault(rank, LogTail(self.attempt.log(rank)))
            prefix = f"rank {rank} | " if self.asked is None else ""
            while new := tail.new_lines(to_the_end=to_the_end):
                click.echo("\n".join(prefix + line for line in new))


def _follow(run_dir: RunDir, tails: _Tails, asked: int | None, *, moves_on: bool) -> None:
    """Print what is new until the run has ended; with `moves_on`, also that of later attempts."""
    while True:
        alive = is_alive(run_dir)  # asked first: what is written before the end is then still read
        newest = run_dir.attempts()[-1]
        is_over = not alive or newest != tails.attempt
        tails.show_new(to_the_end=is_over)
        if is_over and moves_on and newest != tails.attempt:
            click.echo(f"attempt {newest.number}", err=True)
            tails = _Tails(newest, asked, last_lines=None)
        elif is_over:
            return
        else:
            time.sleep(POLL_SECONDS)


def _show_errors(attempt: Attempt, asked: int | None) -> None:
    lines = list(_failure_lines([report for report in read_failures(attempt) if asked in (None, report.rank)]))
    ranks = [rank for rank in ranks_with_log(attempt) if asked in (None, rank)]
    for text, having in folded_problems(attempt, ranks).items():
        lines += [f"{rank_names(having)} | {line}" for line in text.split("\n")]
    click.echo("\n".join(lines) if lines else f"no failure, error or warning in attempt {attempt.number}")


def _failure_lines(reports: list[WorkerReport]) -> Iterator[str]:
    """A line for each different failure; the traceback is in the log."""
    alike: dict[str, list[WorkerReport]] = {}
    for report in reports:
        alike.setdefault(report.message, []).append(report)
    for message, those in alike.items():
        place = told_place(those[0], tuple(report.rank for report in those))
        yield f"{place} failed: {those[0].error_class}: {first_line(message)}"
