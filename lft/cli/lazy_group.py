"""A group of verbs of which each is imported only when it is used, so that --help and completion need none of them."""

import difflib
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from lft.cli.verb import Verb


class LazyGroup(click.Group):
    """Finds the command `x` as `command` in the module `<modules>x`; `verbs` holds each with its line in --help.

    `sections` orders them on the help page; those that are in none stand at the end.
    """

    def __init__(
        self,
        *arguments: Any,
        verbs: dict[str, str],
        modules: str,
        sections: Mapping[str, Sequence[str]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._verbs, self._modules, self._sections = verbs, modules, sections or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order in which they are given."""
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        if cmd_name not in self._verbs:
            return None
        command = import_module(self._modules + cmd_name.replace("-", "_")).command
        assert isinstance(command, click.Command)
        return Verb.made_of(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest verb for one that does not exist."""
        if args and args[0] not in self._verbs and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self._verbs, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(self._verbs)}"
            raise click.UsageError(f"there is no command {args[0]}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The verbs first."""
        self.format_commands(ctx, formatter)
        click.Command.format_options(self, ctx, formatter)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        placed = {verb for verbs in self._sections.values() for verb in verbs}
        wide = max(map(len, self._verbs))
        rest = [verb for verb in self._verbs if verb not in placed]
        for name, verbs in [*self._sections.items(), ("More" if placed else "Commands", rest)]:
            records = [(f"{verb:<{wide}}", self._verbs[verb]) for verb in verbs if verb in self._verbs]
            if records:
                with formatter.section(name):
                    formatter.write_dl(records)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Verbs and options, without importing any verb."""
        verbs = [CompletionItem(verb, help=line) for verb, line in self._verbs.items() if verb.startswith(incomplete)]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)
