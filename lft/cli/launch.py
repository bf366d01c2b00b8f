"""lft launch: plan, start, watch, finish."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from lft.cli.continuing import AUTO, Intent, intend, refuse_running
from lft.cli.in_job import launch_in_job
from lft.cli.options import node_options, plan_options, resume_option, settings_from
from lft.cli.work import work
from lft.core.allocation import slurm_allocation
from lft.core.errors import PreflightError
from lft.core.rank import slurm_variables
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.plan.nodes import on_node


@click.command("launch")
@plan_options
@resume_option
@node_options
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@click.option("--explicit", is_flag=True, hidden=True)  # for batch scripts: go on as lft resume does
def command(
    run_file: Path | None,
    demo: bool,
    sets: tuple[str, ...],
    resume: str,
    rdzv: str | None,
    node_rank: int | None,
    dry_run: bool,
    explicit: bool,
    **flags: Any,
) -> int:
    """Plan, start, watch and finish a run; typed again, go on with it.

    Settings come from RUN_FILE (or ./lft.yaml), then from the options.

    \b
    lft launch run.yaml --gpus 4 --set training.num_epochs=1
    """
    settings = settings_from(run_file, demo, sets, flags)
    allocation = slurm_allocation(slurm_variables())
    if allocation and not dry_run and rdzv is None and (allocation.in_step or settings.launch.nodes > 1):
        return launch_in_job(settings, allocation, resume, explicit=explicit)
    return carry_out(settings, resume, node_rank, rdzv, explicit=explicit, dry_run=dry_run)


def carry_out(
    settings: RunSettings,
    resume: str = AUTO,
    node_rank: int | None = None,
    rdzv: str | None = None,
    *,
    explicit: bool = False,
    dry_run: bool = False,
) -> int:
    """Decide what is to be done, show it and, but for a dry run, do it to its end; returns the exit code."""
    if not dry_run and find_spec("torch") is None:
        raise PreflightError(
            "torch is not installed, which every rank needs", next_step="pip install torch; then lft doctor"
        )
    if not dry_run and not node_rank:
        refuse_running(RunDir(settings.output_dir))
    intent = intend(settings, resume, explicit=explicit)
    return work(Intent(on_node(intent.plan, node_rank, rdzv), intent.tasks), dry_run=dry_run)
