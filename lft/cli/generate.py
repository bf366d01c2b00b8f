"""lft generate: answers of a tuned model."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lft.cli.asking import read_prompts
from lft.cli.libraries import expect_libraries, tell
from lft.cli.verb import option
from lft.core.adapter_folder import find_tuned
from lft.core.errors import PreflightError

if TYPE_CHECKING:
    from lft.train.answering import Messages, Sampling
    from lft.train.tuned import Tuned

HOW, WHAT = "How to answer", "What to ask"
MODELS = ("base", "tuned")


def sampling_options(function: Any) -> Any:
    """How tokens are chosen, for the verbs that answer."""
    for decorate in (
        option(HOW, "--seed", type=int, default=0, help="Of what is drawn. Default: 0."),
        option(
            HOW, "--top-p", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Draw from the likeliest."
        ),
        option(
            HOW, "--temperature", type=click.FloatRange(0), default=0.0, help="Above 0 answers are drawn. Default: 0."
        ),
        option(HOW, "--max-new-tokens", type=click.IntRange(1), default=256, help="Longest answer. Default: 256."),
        option(HOW, "--system", metavar="TEXT", help="A system prompt, where the model's template has one."),
        option("Where", "--trust-remote-code", is_flag=True, help="Run model code that comes with the weights."),
        option("Where", "--model", metavar="NAME", words="file", help="Where the base model is now."),
    ):
        function = decorate(function)
    return function


@click.command("generate")
@click.argument("output_dir", type=click.Path(path_type=Path))
@click.argument("prompt", required=False)
@option(WHAT, "--file", type=click.Path(path_type=Path), metavar="FILE", help="A prompt a line; .jsonl: its prompt.")
@option(WHAT, "--compare", is_flag=True, help="Answer with the base model too.")
@option(HOW, "--batch-size", type=click.IntRange(1), default=16, help="Prompts of a file at a time. Default: 16.")
@option(HOW, "--json", "as_json", is_flag=True, help="A JSON line for each prompt.")
@sampling_options
def command(
    output_dir: Path, prompt: str | None, file: Path | None, compare: bool, batch_size: int, as_json: bool, **how: Any
) -> None:
    """Answer PROMPT (- is standard input) with the tuned model in OUTPUT_DIR: a run, an adapter or a merged model.

    \b
    lft generate runs/support "My order has not arrived" --compare
    lft generate runs/support --file questions.txt --json
    """
    prompts = read_prompts(prompt, file)
    tuned, sampling = load(output_dir, how)
    if compare and not tuned.has_adapter:
        raise PreflightError(f"{output_dir} holds a whole model: there is no base to compare it with")
    asked = [conversation(how["system"], each) for each in prompts]
    names = MODELS if compare else ("tuned",)
    if len(asked) == 1 and not as_json:
        for name in names:
            _stream(tuned, asked[0], sampling, f"{name}: " if compare else "", is_base=name == "base")
        return
    answers = {name: _answers(tuned, asked, sampling, batch_size, is_base=name == "base") for name in names}
    for number, text in enumerate(prompts):
        given = {name: answers[name][number] for name in names}
        if as_json:
            click.echo(json.dumps({"prompt": text, **given}, ensure_ascii=False))
        else:
            click.echo(f"prompt: {text}\n" + "\n".join(f"{name}: {answer}" for name, answer in given.items()) + "\n")


def load(output_dir: Path, how: dict[str, Any]) -> "tuple[Tuned, Sampling]":
    """The model, and how it chooses tokens. What takes long is said on standard error: answers alone are output."""
    folder = find_tuned(output_dir, how["model"])
    expect_libraries()
    from lft.train.answering import Sampling
    from lft.train.tuned import load_tuned

    chosen = {name: how[name] for name in ("max_new_tokens", "temperature", "top_p", "seed")}
    tuned = load_tuned(folder, tell, trust_remote_code=how["trust_remote_code"])
    return tuned, Sampling(**chosen)


def conversation(system: str | None, prompt: str) -> "Messages":
    """As chat templates take it."""
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": prompt}]


def _stream(tuned: "Tuned", messages: "Messages", sampling: "Sampling", label: str, *, is_base: bool) -> None:
    from contextlib import nullcontext

    from lft.train.answering import answer, begin, conversation_tokens

    begin(sampling)
    click.echo(label, nl=False)
    with tuned.base() if is_base else nullcontext():
        answer(tuned, [conversation_tokens(tuned, messages)], sampling, write)
    click.echo()


def write(text: str) -> None:
    """A piece of an answer, at once."""
    click.echo(text, nl=False)
    sys.stdout.flush()


def _answers(
    tuned: "Tuned", asked: "list[Messages]", sampling: "Sampling", batch_size: int, *, is_base: bool
) -> list[str]:
    from contextlib import nullcontext

    from lft.train.answering import answer_each, conversation_tokens

    prompts = [conversation_tokens(tuned, messages) for messages in asked]
    with tuned.base() if is_base else nullcontext():
        return answer_each(tuned, prompts, sampling, batch_size)
