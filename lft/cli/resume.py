"""lft resume: go on with a run from its newest checkpoint."""

import sys
from pathlib import Path
from typing import Any

import click

from lft.cli.finished import read_plan
from lft.cli.launch import carry_out
from lft.cli.options import given_flags, job_options, resume_options
from lft.cli.planning import plan_here
from lft.cli.story import typed
from lft.cli.submit import check, send
from lft.core.allocation import slurm_allocation
from lft.core.errors import DONE, PreflightError, SettingsError
from lft.core.rank import slurm_variables
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings
from lft.launch.follow import RunStatus, existing_run, read_status, submitted_run, training_attempts
from lft.launch.resuming import ResumePoint, misfits, resume_point
from lft.launch.submission import SETTINGS, job_ids, write_job
from lft.plan.launch_plan import LaunchPlan
from lft.plan.nodes import on_node


@click.command("resume")
@click.argument("output_dir", type=click.Path(path_type=Path))
@resume_options
@job_options
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
def command(output_dir: Path, sets: tuple[str, ...], dry_run: bool, **flags: Any) -> int:
    """Go on with the run in OUTPUT_DIR from its newest complete checkpoint, with the same global batch.

    A run that was submitted to SLURM is submitted again.

    \b
    lft resume runs/support --set training.batch_size=2
    """
    waiting = submitted_run(output_dir)
    if waiting is not None:
        return submit_again(read_settings(waiting.slurm / SETTINGS, given_flags(flags), sets))
    run_dir = existing_run(output_dir)
    status = read_status(run_dir)
    if status.is_alive:
        _refuse(status, output_dir)
    if status.is_trained:
        return _say_finished(status, output_dir)
    settings = _settings(run_dir, sets, flags)
    if job_ids(run_dir) and not dry_run and slurm_allocation(slurm_variables()) is None:
        return submit_again(settings)
    point = resume_point(run_dir)
    for words in point.left_out:
        click.echo(f"  left out   {words}")
    where = point.checkpoint.name if point.checkpoint else "the first step: there is no complete checkpoint"
    click.echo(f"  resume     from {where}")
    plan = on_node(plan_here(settings), None, None)
    _refuse_misfits(point, plan)
    return carry_out(plan.model_copy(update={"resume_from": point.checkpoint}), dry_run=dry_run)


def submit_again(settings: RunSettings) -> int:
    """Go on with a run that was submitted, in a new job."""
    check(settings)
    send(settings, write_job(settings, sys.executable), [])
    return DONE


def _refuse(status: RunStatus, output_dir: Path) -> None:
    newest = status.attempts[0]
    who = f" ({newest.launcher})" if newest.launcher else ""
    raise PreflightError(
        f"{output_dir} is running: attempt {newest.number}{who}",
        next_step=f"{typed('status', output_dir)} --watch     or: {typed('stop', output_dir)}",
    )


def _refuse_misfits(point: ResumePoint, plan: LaunchPlan) -> None:
    """Before any file of the run is touched: SettingsError with all that keeps the checkpoint from being gone on with."""
    if point.checkpoint is None or point.began is None:
        return
    mistakes = misfits(point.checkpoint, read_plan(point.began), plan)
    if mistakes:
        raise SettingsError(
            mistakes,
            source=f"a resume from {point.checkpoint.name}",
            next_step="change these, or begin anew in another folder: lft launch ... --output-dir NEW",
        )


def _say_finished(status: RunStatus, output_dir: Path) -> int:
    """There is nothing to go on with; what may be missing is the benchmark."""
    outcome = status.attempts[0].outcome
    if outcome is not None and outcome.exit_code == DONE and not outcome.problems:
        click.echo(f"  finished   the run in {output_dir} is done; there is nothing to resume")
        click.echo(f"  next       {typed('benchmark', output_dir)}     compares base and tuned model again")
    else:
        click.echo(f"  finished   the run in {output_dir} has trained, and its adapter is saved; nothing to resume")
        click.echo(f"  next       {typed('benchmark', output_dir)}     makes report and card")
    return DONE


def _settings(run_dir: RunDir, sets: tuple[str, ...], flags: dict[str, Any]) -> RunSettings:
    """The run's settings, changed as asked for; its global batch and its folder stay.

    The folder may have been moved or copied since. Raises SettingsError or PreflightError.
    """
    kept: dict[str, tuple[str, object]] = {"output_dir": ("OUTPUT_DIR", str(run_dir.output_dir))}
    for before in training_attempts(run_dir)[:1]:
        # the default follows the ranks asked for, and these may be others now
        kept["training.global_batch_size"] = ("the run so far", read_plan(before).batch.global_batch)
    settings = read_settings(run_dir.settings, kept | given_flags(flags), sets)
    if settings.output_dir != run_dir.output_dir:
        raise SettingsError(["--set output_dir  a run goes on in its own folder; leave it out"])
    return settings
