"""A group of verbs of which each is imported only when it is used, so that --help needs none of them."""

import difflib
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """Finds the command `x` as `command` in the module `<modules>x`; `verbs` holds each with its line in --help."""

    def __init__(self, *arguments: Any, verbs: dict[str, str], modules: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._verbs, self._modules = verbs, modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order in which they are given."""
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb."""
        if cmd_name not in self._verbs:
            return None
        command = import_module(self._modules + cmd_name).command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with the nearest verb for one that does not exist."""
        if args and args[0] not in self._verbs and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self._verbs, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(self._verbs)}"
            raise click.UsageError(f"there is no command {args[0]}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._verbs.items()))
