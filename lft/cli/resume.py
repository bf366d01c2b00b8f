"""lft resume: go on with a run by its folder alone."""

from pathlib import Path
from typing import Any

import click

from lft.cli.launch import carry_out
from lft.cli.options import given_flags, node_options, resume_options
from lft.core.errors import SettingsError
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings
from lft.launch.follow import existing_run


@click.command("resume")
@click.argument("output_dir", type=click.Path(path_type=Path))
@resume_options
@node_options
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
def command(
    output_dir: Path, sets: tuple[str, ...], rdzv: str | None, node_rank: int | None, dry_run: bool, **flags: Any
) -> int:
    """Go on with the run in OUTPUT_DIR from its newest checkpoint, with the same global batch.

    Settings are those of the run, changed by the options; a change is refused only where the checkpoint cannot be used.

    \b
    lft resume runs/support --set training.batch_size=2
    """
    settings = _settings(existing_run(output_dir), sets, flags)
    return carry_out(settings, node_rank=node_rank, rdzv=rdzv, explicit=True, dry_run=dry_run)


def _settings(run_dir: RunDir, sets: tuple[str, ...], flags: dict[str, Any]) -> RunSettings:
    """The run's settings, changed as asked for; its folder, which may have been moved since, stays. Raises SettingsError."""
    folder = {"output_dir": ("OUTPUT_DIR", str(run_dir.output_dir))}
    settings = read_settings(run_dir.settings, folder | given_flags(flags), sets)
    if settings.output_dir != run_dir.output_dir:
        raise SettingsError(["--set output_dir  a run goes on in its own folder; leave it out"])
    return settings
