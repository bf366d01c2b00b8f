"""lft schema: the run file's JSON Schema."""

import json

import click

from lft.core.settings import RunSettings


@click.command("schema")
def command() -> None:
    """Print the run file's JSON Schema, for editors.

    \b
    lft schema > lft.schema.json
    """
    click.echo(json.dumps(RunSettings.model_json_schema(), indent=2))
