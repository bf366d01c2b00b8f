"""A verb of the command line: its options in sections, --quiet and --verbose, and help that fits narrow terminals."""

import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from lft.cli.verbosity import everywhere

WIDEST, NARROWEST = 80, 30
"""Columns of help pages, on wide and on narrow terminals."""
WIDEST_TERM = 28
STACKED_BELOW = 60
"""On narrower terminals what an option does stands on the next line."""


class Formatter(click.HelpFormatter):
    """Click's, for terminals of less than its 50 columns too."""

    def __init__(self, indent_increment: int = 2, width: int | None = None, max_width: int | None = None) -> None:
        columns = width or min(shutil.get_terminal_size().columns, WIDEST)
        super().__init__(indent_increment, max(columns - 2, NARROWEST), max_width)

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """A list of terms and what they mean."""
        if self.width < STACKED_BELOW:
            rows, col_max = [(term.rstrip(), meaning) for term, meaning in rows], 4
        super().write_dl(rows, col_max, col_spacing)


click.Context.formatter_class = Formatter


class Option(click.Option):
    """An option in a section of the help page; `words` are what can be typed for it, or "file" or "dir" for paths."""

    def __init__(self, *arguments: Any, section: str = "", words: Sequence[str] | str = (), **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.section, self.words = section, words

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What the shell offers."""
        if isinstance(self.words, str):
            return [CompletionItem(incomplete, type=self.words)]
        found = [CompletionItem(word) for word in self.words if word.startswith(incomplete)]
        return found or super().shell_complete(ctx, incomplete)


def option(section: str, *names: str, **more: Any) -> Callable[[Any], Any]:
    """`click.option`, in a section."""
    return click.option(*names, cls=Option, section=section, **more)


class Verb(click.Command):
    """A command whose options stand in sections, those of every verb at the end."""

    @classmethod
    def made_of(cls, command: click.Command) -> click.Command:
        """A verb as its module defines it, with the options of every verb; a group of verbs as it is."""
        if isinstance(command, click.Group):
            return command
        return cls(
            command.name,
            callback=command.callback,
            params=[*command.params, *everywhere()],
            help=command.help,
            epilog=command.epilog,
            context_settings=command.context_settings,
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Sections in the order of their first options; what has none stands in the last."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                sections.setdefault(getattr(parameter, "section", ""), []).append(record)
        wide = min(max(len(term) for records in sections.values() for term, _ in records), WIDEST_TERM)
        rest = sections.pop("", [])
        for name, records in [*sections.items(), ("More" if sections else "Options", rest)]:
            with formatter.section(name):
                formatter.write_dl([(f"{term:<{wide}}", meaning) for term, meaning in records])
