"""lft selftest: whether lft keeps its promises on this machine."""

import click

from lft.cli.lazy_group import LazyGroup

SELFTESTS = {"preempt": "Interrupt a small run, go on with it, and compare."}
"""Verb -> its line in --help."""


@click.group("selftest", cls=LazyGroup, verbs=SELFTESTS, modules="lft.cli.selftest_")
def command() -> None:
    """Try on this machine, with a tiny model made on the spot, what a long run relies on.

    \b
    lft selftest preempt --gpus 2
    """
