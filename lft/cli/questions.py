"""Asking until the answer is one that can be used."""

import difflib
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

import click

from lft.cli.prompt import get_user_input
from lft.core.errors import SettingsError

Answer = TypeVar("Answer")


class Unusable(ValueError):  # noqa: N818  an answer, not a failure
    """Why an answer cannot be used: what was expected, in one line."""


def ask(question: str, default: str | None, use: Callable[[str], Answer]) -> Answer:
    """Ask again and again, until `use` makes something of the answer; it raises Unusable for one it cannot use.

    Raises SettingsError where the input ends, as a pipe's does.
    """
    while True:
        try:
            answer = get_user_input(question, default)
            if not sys.stdin.isatty():
                click.echo(answer)  # as a terminal shows what is typed
        except EOFError:
            _ended(question)
        except UnicodeDecodeError:
            click.echo("  again      that is not UTF-8 text")
            continue
        try:
            if not answer.isprintable():
                raise Unusable("text on one line is expected")
            return use(answer)
        except Unusable as problem:
            click.echo(f"  again      {problem}")


def choose(question: str, options: Mapping[str, str], default: str) -> str:
    """One of several words, or its beginning; each is shown with what it means."""
    click.echo(f"{question}")
    width = max(map(len, options))
    for name, meaning in options.items():
        click.echo(f"  {name:<{width}}  {meaning}")

    def use(answer: str) -> str:
        found = [name for name in options if name.startswith(answer.lower())]
        if len(found) != 1:
            near = difflib.get_close_matches(answer.lower(), options, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise Unusable(f"{', '.join(options)} is expected, or how one of them begins{hint}")
        return found[0]

    return ask("Which", default, use)


def confirm(question: str, *, default: bool) -> bool:
    """Yes or no."""

    def use(answer: str) -> bool:
        words = {"yes": True, "y": True, "no": False, "n": False}
        if answer.lower() not in words:
            raise Unusable("yes or no is expected")
        return words[answer.lower()]

    return ask(question, "yes" if default else "no", use)


def whole_number(least: int) -> Callable[[str], int]:
    """A use of an answer: an integer from `least`."""

    def use(answer: str) -> int:
        if not (answer.isascii() and answer.isdigit()) or int(answer) < least:
            raise Unusable(f"a whole number from {least} is expected")
        return int(answer)

    return use


def _ended(question: str) -> NoReturn:
    click.echo()
    raise SettingsError(
        [f"the answers ended at the question: {question}; nothing was written"],
        source="standard input",
        next_step="lft init --yes --model NAME --dataset FILE asks nothing",
    )
