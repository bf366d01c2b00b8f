"""lft resume: go on with a run by its folder alone."""

import sys
from pathlib import Path
from typing import Any

import click

from lft.cli.launch import carry_out
from lft.cli.options import given_flags, job_options, node_options, resume_options
from lft.cli.run_argument import run_argument
from lft.cli.submit import check, send
from lft.core.allocation import slurm_allocation
from lft.core.errors import DONE, SAVED, PreflightError, SettingsError
from lft.core.model_facts import read_model_facts
from lft.core.rank import slurm_variables
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings
from lft.launch.follow import benchmark_here, existing_run, submitted_run
from lft.launch.restart import benchmark_again
from lft.launch.slurm import requeues_by_exit_code
from lft.launch.submission import job_ids, write_job
from lft.plan.sbatch_script import SETTINGS


@click.command("resume")
@run_argument()
@resume_options
@node_options
@job_options
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
def command(
    output_dir: Path, sets: tuple[str, ...], rdzv: str | None, node_rank: int | None, dry_run: bool, **flags: Any
) -> int:
    """Go on with the run in OUTPUT_DIR from its newest checkpoint, with the same global batch.

    Settings are those of the run, changed by the options; a change is refused only where the checkpoint cannot be used.
    A run that was submitted to SLURM is submitted again.

    \b
    lft resume runs/support --set training.batch_size=2
    """
    waiting = submitted_run(output_dir)
    if waiting is not None:
        return submit_again(read_settings(waiting.slurm / SETTINGS, given_flags(flags), sets))
    run_dir = existing_run(output_dir)
    benchmark = benchmark_here(run_dir)
    if benchmark is not None:
        what = f"{output_dir} holds a benchmark of {benchmark.adapter}, and no training to go on with"
        raise PreflightError(what, next_step=benchmark_again(benchmark))
    settings = _settings(run_dir, sets, flags)
    if job_ids(run_dir) and not dry_run and slurm_allocation(slurm_variables()) is None:
        return submit_again(settings)
    return carry_out(settings, node_rank=node_rank, rdzv=rdzv, explicit=True, dry_run=dry_run)


def submit_again(settings: RunSettings) -> int:
    """Go on with a run that was submitted, in a new job."""
    check(settings, read_model_facts(settings.model))
    requeue_exit = requeues_by_exit_code(SAVED)
    send(settings, write_job(settings, sys.executable, explicit=True, requeue_exit=requeue_exit), [])
    return DONE


def _settings(run_dir: RunDir, sets: tuple[str, ...], flags: dict[str, Any]) -> RunSettings:
    """The run's settings, changed as asked for; its folder, which may have been moved since, stays. Raises SettingsError."""
    folder = {"output_dir": ("OUTPUT_DIR", str(run_dir.output_dir))}
    settings = read_settings(run_dir.settings, folder | given_flags(flags), sets)
    if settings.output_dir != run_dir.output_dir:
        raise SettingsError(["--set output_dir  a run goes on in its own folder; leave it out"])
    return settings
