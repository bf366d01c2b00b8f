"""lft upload: a finished run's adapter to the Hugging Face Hub."""

from pathlib import Path

import click

from lft.cli.finished import finished_plan
from lft.core.errors import SettingsError
from lft.core.settings import UploadSettings
from lft.launch.agent import upload


@click.command("upload")
@click.argument("output_dir", type=click.Path(path_type=Path))
@click.option("--repo-name", metavar="USER/NAME", help="Repository; the run file's by default.")
@click.option("--create-new", is_flag=True, help="Create the repository if it does not exist.")
@click.option("--private", is_flag=True, help="Make a created repository private.")
def command(output_dir: Path, repo_name: str | None, create_new: bool, private: bool) -> None:
    """Upload adapter, tokenizer and card of the finished run in OUTPUT_DIR. The token is that of `hf auth login` or HF_TOKEN.

    \b
    lft upload runs/support --repo-name me/support-lora --create-new --private
    """
    settings = finished_plan(output_dir).settings
    wish = settings.upload
    name = repo_name or wish.repo_name
    if name is None:
        raise SettingsError(["no repository is named"], next_step=f"lft upload {output_dir} --repo-name USER/NAME")
    wish = UploadSettings(repo_name=name, create_new=create_new or wish.create_new, private=private or wish.private)
    click.echo(f"uploaded   {upload(settings.model_copy(update={'upload': wish}))}")
