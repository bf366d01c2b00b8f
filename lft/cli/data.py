"""lft data: the data of a run, ahead of it."""

import click

from lft.cli.lazy_group import LazyGroup

DATA_VERBS = {
    "prepare": "Make the tokens of a run ahead of it.",
    "inspect": "Show what would be trained, and what about it is worrying.",
    "prune": "Free prepared data that has not been used for long.",
}
"""Verb -> its line in --help."""


@click.group("data", cls=LazyGroup, verbs=DATA_VERBS, modules="lft.cli.data_")
def command() -> None:
    """Prepare, inspect and free the data of runs. A run prepares what is missing by itself.

    \b
    lft data prepare run.yaml
    lft data inspect run.yaml --rows 5
    lft data prune --older-than 30d
    """
