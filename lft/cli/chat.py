"""lft chat: a conversation with a tuned model."""

import sys
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import click

from lft.cli.generate import conversation, load, sampling_options, write
from lft.cli.run_argument import run_argument
from lft.core.errors import PreflightError, SettingsError

if TYPE_CHECKING:
    from lft.train.answering import Messages, Sampling
    from lft.train.tuned import Tuned

MOST_SHOWN = 60
HELP = "/system TEXT  another system prompt   /reset  begin anew   /undo  forget the last turn   /quit  end"


@click.command("chat")
@run_argument()
@sampling_options
def command(output_dir: Path, **how: Any) -> None:
    """Talk with the tuned model in OUTPUT_DIR: a run, an adapter or a merged model. Ctrl-C ends an answer, /quit the chat.

    \b
    lft chat runs/support
    lft chat runs/support --system "You are brief." --temperature 0.7
    """
    tuned, sampling = load(output_dir, how)
    if tuned.style != "chat":
        raise PreflightError(
            f"the model in {output_dir} was not trained on conversations, and has no chat template",
            next_step=f'lft generate {output_dir} "PROMPT"',
        )
    from lft.train.answering import begin

    begin(sampling)
    click.echo(HELP, err=True)
    _talk(Chat(tuned, sampling, how["system"]))


class Chat:
    """The turns so far. The oldest are left out where the model has no positions for them."""

    def __init__(self, tuned: "Tuned", sampling: "Sampling", system: str | None) -> None:
        self.tuned, self.sampling, self.system = tuned, sampling, system
        self.turns: Messages = []

    def ask(self, text: str) -> None:
        """Answer, and remember both; an answer that is stopped is forgotten with its question."""
        from lft.train.answering import answer

        turns = [*self.turns, *conversation(None, text)]
        prompt, turns = self._fitting(turns)
        try:
            said = answer(self.tuned, [prompt], self.sampling, write)[0]
        except KeyboardInterrupt:
            click.echo("\nstopped; this turn is forgotten", err=True)
            return
        click.echo()
        self.turns = [*turns, {"role": "assistant", "content": said}]

    def _fitting(self, turns: "Messages") -> "tuple[list[int], Messages]":
        from lft.train.answering import conversation_tokens
        from lft.train.generation import room

        most = room(self.tuned.model, self.sampling.max_new_tokens)
        before = [{"role": "system", "content": self.system}] if self.system else []
        dropped = 0
        while True:
            tokens = conversation_tokens(self.tuned, [*before, *turns])
            if most is None or len(tokens) <= most or len(turns) == 1:
                break
            turns, dropped = turns[2:], dropped + 1
        if dropped:
            click.echo(f"the oldest {dropped} turns are left out: the model has no positions for more", err=True)
        return tokens, turns


def _talk(chat: Chat) -> None:
    while (line := _next_line()) is not None:
        name, _, rest = line.partition(" ")
        if name == "/quit":
            return
        if name.startswith("/"):
            _obey(chat, name, rest.strip())
        elif line:
            try:
                chat.ask(line)
            except SettingsError as error:  # the template refuses a system prompt, say
                click.echo("\n".join(error.mistakes), err=True)


def _next_line() -> str | None:
    """What is typed next; None at the end of the input."""
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            click.echo("\n/quit ends the chat", err=True)


def _obey(chat: Chat, name: str, rest: str) -> None:
    if name == "/reset":
        chat.turns = []
        done = "the chat begins anew"
    elif name == "/undo":
        done = (
            "forgot: " + shorten(chat.turns[-2]["content"], MOST_SHOWN) if chat.turns else "there is no turn to forget"
        )
        chat.turns = chat.turns[:-2]
    elif name == "/system":
        chat.system, chat.turns = rest or None, []
        done = "the chat begins anew, " + ("with that system prompt" if rest else "without a system prompt")
    else:
        done = f"{name} is not known; {HELP}"
    click.echo(done, err=True)
