"""lft launch: plan, start, watch, finish."""

from pathlib import Path
from typing import Any

import click

from lft.cli.continuing import AUTO, Intent, intend, refuse_running
from lft.cli.options import node_options, plan_options, resume_option, settings_from
from lft.cli.present import RunDisplay, show_outcome, show_plan
from lft.cli.story import finished_lines
from lft.core.errors import DONE
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.core.stop_signals import early_stop
from lft.launch.agent import Agent
from lft.plan.nodes import on_node


@click.command("launch")
@plan_options
@resume_option
@node_options
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
def command(
    run_file: Path | None,
    demo: bool,
    sets: tuple[str, ...],
    resume: str,
    rdzv: str | None,
    node_rank: int | None,
    dry_run: bool,
    **flags: Any,
) -> int:
    """Plan, start, watch and finish a run; typed again, go on with it.

    Settings come from RUN_FILE (or ./lft.yaml), then from the options.

    \b
    lft launch run.yaml --gpus 4 --set training.num_epochs=1
    """
    settings = settings_from(run_file, demo, sets, flags)
    return carry_out(settings, resume, node_rank, rdzv, dry_run=dry_run)


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
    if not dry_run and not node_rank:
        refuse_running(RunDir(settings.output_dir))
    intent = intend(settings, resume, explicit=explicit)
    intent = Intent(on_node(intent.plan, node_rank, rdzv), intent.tasks)
    plan, tasks = intent.plan, intent.tasks
    if tasks is None or dry_run:
        show_plan(plan)
    else:
        click.echo("\n".join(finished_lines(settings.output_dir, tasks)))
    if dry_run or tasks == () or (tasks and plan.node > 0):
        return DONE
    with RunDisplay(plan.local_ranks[0]) as display:
        agent = Agent(plan, display.observe)
        with agent.stop.listening():
            outcome = agent.run() if tasks is None else agent.finish(tasks)
            early_stop.retire()
    show_outcome(outcome, agent.plan)
    return outcome.exit_code
