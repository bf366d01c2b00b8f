"""OUTPUT_DIR of the verbs that look at a run or go on with it; beside a lft.yaml it need not be typed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from lft.cli.libraries import tell
from lft.core.errors import SettingsError

Function = TypeVar("Function", bound=Callable[..., Any])
DEFAULT_FILE = "lft.yaml"


def run_argument(name: str = "output_dir", **options: Any) -> Callable[[Function], Function]:
    """Add OUTPUT_DIR; where none is named it is the one that ./lft.yaml trains into, which is said."""
    kind = click.Path(path_type=Path)
    return click.argument(name, required=False, type=kind, callback=_or_of_the_run_file, **options)


def _or_of_the_run_file(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
    if value or context.resilient_parsing:
        return value
    if not Path(DEFAULT_FILE).exists():
        mistake = f"OUTPUT_DIR is missing, and there is no ./{DEFAULT_FILE} that names one"
        raise SettingsError([mistake], next_step=f"{context.command_path} OUTPUT_DIR, the folder of a run")
    from lft.core.settings_file import read_settings

    folder = read_settings(Path(DEFAULT_FILE), {}, ()).output_dir
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    tell(f"  run        {shown}   the output_dir of {DEFAULT_FILE}")
    return shown if parameter.nargs == 1 else (shown,)
