"""lft completion: verbs and options at a press of Tab."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print what a shell needs to complete verbs, options and their values.

    \b
    eval "$(lft completion bash)"        in ~/.bashrc
    eval "$(lft completion zsh)"         in ~/.zshrc, after compinit
    lft completion fish > ~/.config/fish/completions/lft.fish
    """
    from lft.cli.main import cli

    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(cli, {}, "lft", "_LFT_COMPLETE").source())
