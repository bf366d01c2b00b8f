"""lft status: how far a run is, or how its attempts ended."""

import time
from pathlib import Path

import click

from lft.cli.job_story import JobWatch, before_it_began, goes_on, newest_job, sweep_lines, told_job, told_wait
from lft.cli.lines import echo_lines
from lft.cli.run_argument import run_argument
from lft.cli.story import next_step, told_apart, told_attempt, told_checkpoints, typed
from lft.core.run_dir import RunDir
from lft.launch.follow import RunStatus, existing_run, read_status, submitted_run
from lft.launch.slurm import Job
from lft.launch.submission import sweep_of

REFRESH_SECONDS = 1.0
SECONDS_BETWEEN_LINES = 10.0
"""Without a terminal: between two lines that differ only in how far the run is."""


@click.command("status")
@run_argument()
@click.option("--watch", is_flag=True, help="Go on telling until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON document.")
def command(output_dir: Path, watch: bool, as_json: bool) -> None:
    """Say how far the run in OUTPUT_DIR is, how its attempts ended, and what to type next.

    \b
    lft status runs/support --watch
    """
    if watch and as_json:
        raise click.UsageError("--watch and --json exclude each other")
    waiting = submitted_run(output_dir)
    if waiting is not None and sweep_of(waiting):
        echo_lines(f"  {line}" for line in sweep_lines(waiting))
        return
    if waiting is not None and not watch:
        echo_lines(f"  {line}" for line in before_it_began(waiting, output_dir))
        return
    run_dir = waiting or existing_run(output_dir)
    if as_json:
        click.echo(read_status(run_dir).model_dump_json(indent=1))
    elif watch:
        _watch(run_dir, output_dir)
    else:
        echo_lines(status_lines(read_status(run_dir), output_dir, newest_job(run_dir)))


def status_lines(status: RunStatus, output_dir: Path, job: Job | None = None) -> list[str]:
    """The whole status, the job and then the newest attempt first."""
    newest, *earlier = status.attempts
    lines = [told_job(job)] if job else []
    lines.append(told_attempt(newest, status.progress))
    if status.progress is not None:
        lines += [f"  {line}" for line in told_apart(status.progress.apart)]
    if status.is_alive and newest.outcome is not None:
        lines.insert(0, "a launcher is at work here; its next attempt has not begun")
    pairs = zip(earlier, status.attempts, strict=False)
    lines += [told_attempt(attempt, None) + told_wait(attempt, following) for attempt, following in pairs]
    lines += told_checkpoints(status)
    next_words = f"{typed('status', output_dir)} --watch" if goes_on(job) else next_step(status, output_dir)
    return [*(f"  {line}" for line in lines), f"  next   {next_words}"]


def _watch(run_dir: RunDir, output_dir: Path) -> None:
    """Show the status in place on a terminal, else a line for each change, until the run, and its job, have ended."""
    from lft.cli.screen import LiveLines  # with Rich, which the other uses of this verb need not wait for

    ask_job, said, said_at = JobWatch(run_dir), "", 0.0
    with LiveLines() as live:
        while True:
            job, status = ask_job(), read_status(run_dir) if run_dir.attempts() else None
            lines = status_lines(status, output_dir, job) if status else list(before_it_began(run_dir, output_dir))
            if not goes_on(job) and not (status and status.is_alive):
                break
            live.show(lines)
            now, what = time.monotonic(), f"{job and told_job(job)} {_what(status) if status else ''}"
            if not live.is_terminal and (what != said or now - said_at >= SECONDS_BETWEEN_LINES):
                said, said_at = what, now
                echo_lines(lines[: 2 if job and status else 1])
            time.sleep(REFRESH_SECONDS)
    echo_lines(lines)


def _what(status: RunStatus) -> str:
    """What a line without a terminal must not miss: attempts, stages, ranks apart."""
    progress = status.progress
    ranks = [each.rank for each in progress.apart] if progress else []
    return f"{status.attempts[0].number} {status.attempts[0].state} {progress and progress.stage} {ranks}"
