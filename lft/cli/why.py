"""lft why: the whole story of a failure."""

import textwrap
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import click

from lft.cli.job_story import before_it_began, newest_job, told_job
from lft.cli.run_argument import run_argument
from lft.cli.story import next_step, told_apart, told_attempt, told_checkpoints, typed
from lft.core.errors import DONE
from lft.core.order import WorkerReport
from lft.core.run_dir import Attempt, RunDir
from lft.core.words import counted, rank_names
from lft.launch.ending import first_line, told_code, told_place
from lft.launch.follow import RunStatus, existing_run, read_failures, read_status, submitted_run
from lft.launch.logs import LogTail, start_of_last_lines
from lft.launch.outcome import Failure
from lft.launch.triage import fold

LOG_LINES = 15


@click.command("why")
@run_argument()
def command(output_dir: Path) -> None:
    """Tell the whole story of why the run in OUTPUT_DIR failed, and what to do next.

    \b
    lft why runs/support
    """
    waiting = submitted_run(output_dir)
    if waiting is not None:
        click.echo("\n".join(before_it_began(waiting, output_dir)))
        return
    run_dir = existing_run(output_dir)
    job = newest_job(run_dir)
    click.echo("\n".join([*([told_job(job)] if job else []), *story(run_dir, read_status(run_dir), output_dir)]))


def story(run_dir: RunDir, status: RunStatus, output_dir: Path) -> list[str]:
    """What happened to the newest attempt, or, while it runs, to the newest that failed before it."""
    newest = status.attempts[0]
    lines = [told_attempt(newest, status.progress)]
    told = newest
    if newest.state == "running":
        failed = (each for each in status.attempts if each.outcome is not None and each.outcome.failure is not None)
        told = next(failed, newest)
        if told is not newest:
            lines.append(f"before it, {told_attempt(told, None)}")
    attempt = next(attempt for attempt in run_dir.attempts() if attempt.number == told.number)
    reports = read_failures(attempt)
    failure = told.outcome.failure if told.outcome is not None else None
    if told.outcome is None and reports:  # nobody was left to say which one it was
        failure = fold(reports, len(reports), attempt)
    if failure is not None:
        lines += _failure_lines(attempt, failure, reports)
    elif told.state in ("gone", "unwatched") and status.progress is not None:
        lines += [f"  {line}" for line in told_apart(status.progress.apart)]
        lines += _log_lines(_log_tail(attempt, 0))
        lines.append(f"  log    {attempt.log(0)}")
    elif told.outcome is None or told.outcome.exit_code == DONE:
        lines.append("nothing has failed")
    lines += [f"  {line}" for line in told_checkpoints(status)]
    return [*lines, f"  next   {next_step_after_why(status, output_dir)}"]


def next_step_after_why(status: RunStatus, output_dir: Path) -> str:
    """As `lft status` says it, without sending the reader here."""
    step = next_step(status, output_dir)
    return typed("resume", output_dir) if step.startswith("lft why") else step


def _failure_lines(attempt: Attempt, failure: Failure, reports: Sequence[WorkerReport]) -> list[str]:
    lines = list(_report_lines(attempt, failure))
    others = [report for report in reports if report.rank not in failure.ranks]
    lines += _other_lines(others)
    silent = failure.stopped - len(others)
    if silent > 0:
        lines.append(f"  stopped  {counted(silent, 'other rank')} because of it")
    return lines


def _report_lines(attempt: Attempt, failure: Failure) -> Iterator[str]:
    """Who, where, when, how much memory, and what was raised; without a traceback, the end of the log."""
    cause = failure.report
    yield f"  cause  {told_place(cause, failure.ranks)}"
    if cause.time_ns:
        yield f"  time   {datetime.fromtimestamp(cause.time_ns / 1e9).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    if cause.memory_bytes:
        yield f"  memory {cause.memory_bytes / 2**30:.1f} GiB, the most this rank has held"
    if cause.exit_code:
        yield f"  exit   {cause.exit_code}: {told_code(cause.exit_code)}"
    if cause.message not in cause.traceback:
        yield textwrap.indent(cause.message, "    ")
    if cause.traceback:
        yield textwrap.indent(cause.traceback.rstrip(), "    ")
    else:
        yield from _log_lines(failure.log_tail or _log_tail(attempt, cause.rank))
    yield f"  log    {attempt.log(cause.rank)}"


def _other_lines(others: Sequence[WorkerReport]) -> Iterator[str]:
    """One line for each different failure of other ranks; the victims, that only saw another rank go, last."""
    alike: dict[tuple[bool, str, str], list[int]] = {}
    for report in others:
        alike.setdefault((report.is_victim, report.error_class, report.message), []).append(report.rank)
    for (is_victim, kind, message), ranks in sorted(alike.items(), key=lambda item: (item[0][0], item[1])):
        what = first_line(message)
        yield f"  {'victim' if is_victim else 'also  '} {rank_names(ranks)}: " + (f"{kind}: {what}" if kind else what)


def _log_tail(attempt: Attempt, rank: int) -> str:
    path = attempt.log(rank)
    if not path.exists():
        return ""
    tail = LogTail(path, start_of_last_lines(path, LOG_LINES))
    return "\n".join(tail.new_lines(to_the_end=True))


def _log_lines(text: str) -> Iterator[str]:
    if text:
        yield "  the last lines of its log"
        yield textwrap.indent(text, "    ")
