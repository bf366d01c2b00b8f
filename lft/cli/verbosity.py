"""How much is said: --quiet and --verbose, which every verb has."""

import logging
from typing import Literal

import click

Verbosity = Literal["quiet", "normal", "verbose"]

_chosen: list[Verbosity] = ["normal"]
"""The one of this process, whichever thread asks."""


def verbosity() -> Verbosity:
    """`quiet`: warnings, results and errors. `verbose`: also what the ranks print, and tracebacks of errors."""
    return _chosen[0]


def forget_verbosity() -> None:
    """Back to normal: a command line begins."""
    _chosen[0] = "normal"


def everywhere() -> list[click.Parameter]:
    """The options of every verb."""
    return [
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_choose,
            help="Only warnings, results and errors.",
        ),
        click.Option(
            ["-v", "--verbose"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_choose,
            help="More: logs of the ranks, tracebacks of errors.",
        ),
    ]


def _choose(context: click.Context, option: click.Parameter, is_given: bool) -> None:
    if not is_given:
        return
    wanted: Verbosity = "quiet" if option.name == "quiet" else "verbose"
    if _chosen[0] not in ("normal", wanted):
        raise click.UsageError("--quiet and --verbose exclude each other", context)
    _chosen[0] = wanted


# The Hub's client warns of every retry; without a network lft says in one line what it could not learn.
logging.getLogger("huggingface_hub.utils._http").addFilter(
    lambda record: verbosity() == "verbose" or record.levelno < logging.WARNING
)
