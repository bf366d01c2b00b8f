"""lft launch: plan, start, watch, finish."""

from pathlib import Path
from typing import Any

import click

from lft.cli.options import plan_options, settings_from
from lft.cli.present import RunDisplay, show_outcome, show_plan
from lft.core.hardware import look_at_machine
from lft.core.model_facts import read_model_facts
from lft.core.run_dir import RunDir
from lft.launch.agent import Agent
from lft.plan.launch_plan import make_plan


@click.command("launch")
@plan_options
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
def command(run_file: Path | None, demo: bool, sets: tuple[str, ...], dry_run: bool, **flags: Any) -> int:
    """Plan, start, watch and finish a run.

    Settings come from RUN_FILE (or ./lft.yaml), then from the options.

    \b
    lft launch run.yaml --gpus 4 --set training.num_epochs=1
    """
    settings = settings_from(run_file, demo, sets, flags)
    run_dir = RunDir(settings.output_dir)
    plan = make_plan(settings, look_at_machine(), read_model_facts(settings.model), run_dir.next_attempt().number)
    show_plan(plan)
    if dry_run:
        return 0
    with RunDisplay() as display:
        outcome = Agent(plan, display.observe).run()
    show_outcome(outcome, plan)
    return outcome.exit_code
