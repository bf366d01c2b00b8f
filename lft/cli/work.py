"""What a launch intends, shown and done to its end."""

import click

from lft.cli.continuing import Intent
from lft.cli.present import RunDisplay, show_outcome, show_plan
from lft.cli.story import finished_lines
from lft.core.errors import DONE
from lft.core.stop_signals import early_stop
from lft.launch.agent import Agent
from lft.launch.company import Alone
from lft.launch.stopping import StopRequests


def work(
    intent: Intent, company: Alone | None = None, stop: StopRequests | None = None, *, dry_run: bool = False
) -> int:
    """Show what is to be done and, but for a dry run, do it; returns the exit code. `stop` may be listening already."""
    plan, tasks = intent.plan, intent.tasks
    if tasks is None or dry_run:
        show_plan(plan)
    else:
        click.echo("\n".join(finished_lines(plan.settings.output_dir, tasks)))
    if dry_run or tasks == () or (tasks and plan.node > 0):
        return DONE
    with RunDisplay(plan.local_ranks[0], plan.run_dir) as display:
        agent = Agent(plan, display.observe, company, stop)
        with agent.stop.listening():
            outcome = agent.run() if tasks is None else agent.finish(tasks)
            early_stop.retire()
    show_outcome(outcome, agent.plan)
    return outcome.exit_code
