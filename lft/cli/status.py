"""lft status: how far a run is, or how its attempts ended."""

import time
from pathlib import Path

import click

from lft.cli.story import next_step, told_apart, told_attempt, told_checkpoints
from lft.core.run_dir import RunDir
from lft.launch.follow import RunStatus, existing_run, read_status

REFRESH_SECONDS = 1.0
SECONDS_BETWEEN_LINES = 10.0
"""Without a terminal: between two lines that differ only in how far the run is."""


@click.command("status")
@click.argument("output_dir", type=click.Path(path_type=Path))
@click.option("--watch", is_flag=True, help="Go on telling until the run ends.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON document.")
def command(output_dir: Path, watch: bool, as_json: bool) -> None:
    """Say how far the run in OUTPUT_DIR is, how its attempts ended, and what to type next.

    \b
    lft status runs/support --watch
    """
    run_dir = existing_run(output_dir)
    if watch and as_json:
        raise click.UsageError("--watch and --json exclude each other")
    if as_json:
        click.echo(read_status(run_dir).model_dump_json(indent=1))
    elif watch:
        _watch(run_dir, output_dir)
    else:
        click.echo("\n".join(status_lines(read_status(run_dir), output_dir)))


def status_lines(status: RunStatus, output_dir: Path) -> list[str]:
    """The whole status, the newest attempt first."""
    newest, *earlier = status.attempts
    lines = [told_attempt(newest, status.progress)]
    if status.progress is not None:
        lines += [f"  {line}" for line in told_apart(status.progress.apart)]
    if status.is_alive and newest.outcome is not None:
        lines.insert(0, "a launcher is at work here; its next attempt has not begun")
    lines += [told_attempt(attempt, None) for attempt in earlier]
    lines += told_checkpoints(status)
    return [*(f"  {line}" for line in lines), f"  next   {next_step(status, output_dir)}"]


def _watch(run_dir: RunDir, output_dir: Path) -> None:
    """Show the status in place on a terminal, else a line for each change, until the run ends."""
    from lft.cli.present import LiveLines  # with Rich, which the other uses of this verb need not wait for

    status, said, said_at = read_status(run_dir), "", 0.0
    with LiveLines() as live:
        while status.is_alive:
            lines = status_lines(status, output_dir)
            live.show(lines)
            now = time.monotonic()
            if not live.is_terminal and (_what(status) != said or now - said_at >= SECONDS_BETWEEN_LINES):
                said, said_at = _what(status), now
                click.echo("\n".join(lines[:1]))
            time.sleep(REFRESH_SECONDS)
            status = read_status(run_dir)
    click.echo("\n".join(status_lines(status, output_dir)))


def _what(status: RunStatus) -> str:
    """What a line without a terminal must not miss: attempts, stages, ranks apart."""
    progress = status.progress
    ranks = [each.rank for each in progress.apart] if progress else []
    return f"{status.attempts[0].number} {status.attempts[0].state} {progress and progress.stage} {ranks}"
