"""lft launch: plan, start, watch, finish."""

from pathlib import Path
from typing import Any

import click

from lft.cli.in_job import launch_in_job
from lft.cli.options import plan_options, settings_from
from lft.cli.planning import plan_here
from lft.cli.present import RunDisplay, show_outcome, show_plan
from lft.core.allocation import slurm_allocation
from lft.core.rank import slurm_variables
from lft.launch.agent import Agent
from lft.plan.launch_plan import LaunchPlan
from lft.plan.nodes import on_node


@click.command("launch")
@plan_options
@click.option("--rdzv", metavar="HOST:PORT", help="Several nodes without a scheduler: where rank 0 will listen.")
@click.option("--node-rank", metavar="K", type=int, help="With --rdzv: which of the nodes this one is, from 0.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
def command(
    run_file: Path | None,
    demo: bool,
    sets: tuple[str, ...],
    rdzv: str | None,
    node_rank: int | None,
    dry_run: bool,
    **flags: Any,
) -> int:
    """Plan, start, watch and finish a run.

    Settings come from RUN_FILE (or ./lft.yaml), then from the options.

    \b
    lft launch run.yaml --gpus 4 --set training.num_epochs=1
    """
    settings = settings_from(run_file, demo, sets, flags)
    allocation = slurm_allocation(slurm_variables())
    if allocation and not dry_run and rdzv is None and (allocation.in_step or settings.launch.nodes > 1):
        return launch_in_job(settings, allocation)
    return carry_out(on_node(plan_here(settings), node_rank, rdzv), dry_run=dry_run)


def carry_out(plan: LaunchPlan, *, dry_run: bool) -> int:
    """Show a plan and, but for a dry run, run it to its end; returns the exit code."""
    show_plan(plan)
    if dry_run:
        return 0
    with RunDisplay(plan.local_ranks[0]) as display:
        agent = Agent(plan, display.observe)
        outcome = agent.run()
    show_outcome(outcome, agent.plan)
    return outcome.exit_code
