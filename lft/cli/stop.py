"""lft stop: let a run save, stop it, and say how it ended."""

import math
from pathlib import Path

import click

from lft.cli.job_story import goes_on, newest_job, told_job
from lft.cli.lines import echo_lines
from lft.cli.run_argument import run_argument
from lft.cli.story import launcher_gone, next_step, told_attempt, typed
from lft.core.errors import DONE, HANG, STOPPED, PreflightError
from lft.core.run_dir import RunDir
from lft.launch.follow import existing_run, is_alive, read_status, submitted_run
from lft.launch.slurm import Job, cancel
from lft.launch.stop_request import StopRequest

QUIET_SECONDS = 2.0
SECONDS_BETWEEN_LINES = 10.0


@click.command("stop")
@run_argument()
@click.option("--now", is_flag=True, help="End it at once; what was done since the last checkpoint is lost.")
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(0), help="Wait no longer; the request stays.")
def command(output_dir: Path, now: bool, timeout: float | None) -> int:
    """Stop the run in OUTPUT_DIR after the step it is doing, with a checkpoint, and wait until it has.

    \b
    lft stop runs/support
    """
    run_dir = submitted_run(output_dir) or existing_run(output_dir)
    job = newest_job(run_dir)
    if job and goes_on(job) and not is_alive(run_dir):
        return _cancel(job, output_dir)
    status = read_status(run_dir)
    if not status.is_alive:
        echo_lines([f"  not running: {told_attempt(status.attempts[0], None)}"])
        click.echo(f"  next   {next_step(status, output_dir)}")
        return DONE
    request = StopRequest.make(run_dir, now=now)
    try:
        has_ended = _wait(request, run_dir, math.inf if timeout is None else timeout)
    except KeyboardInterrupt:
        click.echo(f"  not waiting any longer; the run still stops     next: {typed('status', output_dir)}", err=True)
        return STOPPED
    if not has_ended:
        click.echo(f"  still running after {timeout:g} s; the request stays", err=True)
        click.echo(f"  next   {typed('stop', output_dir)} --now     or: {typed('why', output_dir)}", err=True)
        return HANG
    request.withdraw()
    return _say_end(run_dir, output_dir)


def _cancel(job: Job, output_dir: Path) -> int:
    """A job in which nothing has begun yet, or has been requeued: what is saved stays."""
    if complaint := cancel(job.job_id):
        raise PreflightError(f"job {job.job_id} cannot be cancelled: {complaint}", next_step=f"scancel {job.job_id}")
    click.echo(f"  cancelled  {told_job(job)}")
    click.echo(f"  next       {typed('resume', output_dir)}     submits it again")
    return DONE


def _wait(request: StopRequest, run_dir: RunDir, seconds: float) -> bool:
    """Wait for the end, saying from time to time what for."""
    if request.wait(min(QUIET_SECONDS, seconds)):
        return True
    waited = QUIET_SECONDS
    while waited < seconds:
        status = read_status(run_dir)
        echo_lines([f"  waiting for {told_attempt(status.attempts[0], status.progress)}"])
        if request.wait(min(SECONDS_BETWEEN_LINES, seconds - waited)):
            return True
        waited += SECONDS_BETWEEN_LINES
    return False


def _say_end(run_dir: RunDir, output_dir: Path) -> int:
    status = read_status(run_dir)
    newest = status.attempts[0]
    if newest.state == "gone":
        click.echo(f"  {launcher_gone(newest)}; nothing was saved by this stop")
    else:
        echo_lines([f"  {told_attempt(newest, None)}"])
    click.echo(f"  next   {next_step(status, output_dir)}")
    return DONE
