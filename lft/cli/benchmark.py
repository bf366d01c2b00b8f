"""lft benchmark: compare base and tuned model of a finished run."""

from pathlib import Path

import click

from lft.cli.finished import finished_plan
from lft.cli.present import RunDisplay, show_outcome
from lft.core.errors import SettingsError
from lft.core.stop_signals import early_stop
from lft.launch.agent import Agent


@click.command("benchmark")
@click.argument("output_dir", type=click.Path(path_type=Path))
def command(output_dir: Path) -> int:
    """Compare base and tuned model of the finished run in OUTPUT_DIR again, and write its report and card.

    \b
    lft benchmark runs/support
    """
    plan = finished_plan(output_dir)
    if not plan.settings.has_benchmark:
        raise SettingsError(["the run holds out no row, or asks for no prompt (data.held_out, benchmark.num_prompts)"])
    with RunDisplay() as display:
        agent = Agent(plan, display.observe)
        with agent.stop.listening():
            outcome = agent.benchmark()
            early_stop.retire()
    show_outcome(outcome, plan)
    return outcome.exit_code
