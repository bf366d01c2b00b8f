"""lft plan: what a run would do, and why."""

from pathlib import Path
from typing import Any

import click

from lft.cli.continuing import intend
from lft.cli.options import plan_options, resume_option, settings_from
from lft.cli.present import show_commands, show_plan
from lft.core.files import write_text
from lft.plan.document import plan_document


@click.command("plan")
@plan_options
@resume_option
@click.option("--json", "as_json", is_flag=True, help="The whole plan as JSON, with its files and every rank.")
@click.option("--write", metavar="DIR", type=click.Path(path_type=Path), help="Write the plan's files below DIR.")
def command(
    run_file: Path | None,
    demo: bool,
    sets: tuple[str, ...],
    resume: str,
    as_json: bool,
    write: Path | None,
    **flags: Any,
) -> None:
    """Show what a run would do, and why, without starting anything.

    \b
    lft plan run.yaml --gpus 4
    """
    plan = intend(settings_from(run_file, demo, sets, flags), resume).plan
    if write is not None:
        for name, text in plan.files().items():
            write_text(write / name, text)
            click.echo(f"wrote {write / name}", err=True)
    if as_json:
        click.echo(plan_document(plan))
        return
    show_plan(plan)
    show_commands(plan)
