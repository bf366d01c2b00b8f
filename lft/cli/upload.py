"""lft upload: a finished run's adapter to the Hugging Face Hub."""

import sys
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from lft.cli.finished import finished_plan
from lft.cli.run_argument import run_argument
from lft.cli.story import typed
from lft.core.errors import NEXT, STOPPED, SettingsError
from lft.core.settings import UploadSettings


@click.command("upload")
@run_argument()
@click.option("--repo-name", metavar="USER/NAME", help="Repository; the run file's by default.")
@click.option("--create-new", is_flag=True, default=None, help="Create the repository if it does not exist.")
@click.option("--private", is_flag=True, default=None, help="Make a created repository private.")
@click.option("--revision", metavar="BRANCH", help="Branch, made from main if it does not exist. Default: main.")
@click.option("--commit-message", metavar="TEXT", help='Default: "Upload LoRA adapter".')
@click.option("--token-file", metavar="FILE", help="File that holds the token, instead of HF_TOKEN or hf auth login.")
@click.option("--dry-run", is_flag=True, help="List the files, their sizes and where they would go; no network.")
def command(output_dir: Path, dry_run: bool, **given: Any) -> int:
    """Upload adapter, tokenizer, card and loss picture of the finished run in OUTPUT_DIR, in one commit.

    \b
    lft upload runs/support --repo-name me/support-lora --create-new --private
    """
    settings = finished_plan(output_dir).settings
    wish = _wish(settings.upload, {key: value for key, value in given.items() if value is not None})
    if wish.repo_name is None:
        raise SettingsError(
            ["no repository is named"], next_step=f"{typed('upload', output_dir)} --repo-name USER/NAME"
        )
    from lft.core.run_dir import RunDir
    from lft.launch.uploading import remember_upload
    from lft.publish.upload import listing, upload_adapter

    if dry_run:
        click.echo("\n".join(listing(settings.output_dir, wish)))
        return 0
    _show_progress_on_terminals_only()
    try:
        done = upload_adapter(settings.output_dir, wish, announce=lambda line: click.echo(f"upload     {line}"))
    except KeyboardInterrupt:
        said = f"stopped; {wish.repo_name} has all files of this upload, or is as it was"
        click.echo(f"{said}{NEXT}the same command again", err=True)
        return STOPPED
    remember_upload(RunDir(settings.output_dir), done.url)
    if done.is_new:
        click.echo(f"uploaded   {done.describe()}")
    else:
        click.echo(f"unchanged  {done.describe()}: all files were there already, no commit was made")
    return 0


def _wish(wish: UploadSettings, given: dict[str, Any]) -> UploadSettings:
    """The run's settings with the options laid over them. Raises SettingsError."""
    try:
        return UploadSettings.model_validate(wish.model_dump() | given)
    except ValidationError as error:
        options = [f"--{str(each['loc'][0]).replace('_', '-')}" for each in error.errors()]
        whats = {"--repo-name": "username/repository is expected", "--revision": "the name of a branch is expected"}
        mistakes = [f"{option}  {whats.get(option, 'a text is expected')}" for option in options]
        raise SettingsError(mistakes) from None


def _show_progress_on_terminals_only() -> None:
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
