"""The benchmark of an adapter: base and tuned model on rows they were not trained on, shared out over the ranks.

No process group: each rank answers batches and writes JSON lines; rank 0 waits for the files and scores. The batches are cut
for all ranks alike, so the scores do not depend on the number of ranks.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lft.core.files import write_text
from lft.core.order import WorkerOrder
from lft.core.paths import expanded, looks_local
from lft.data.prepared import Prepared
from lft.train.answers import MODELS, Line, Model, Piece, SharedWork, pieces
from lft.train.finetuner import LLMFineTuner
from lft.train.generation import generate_answers, length_batches, prompt_tokens
from lft.train.row_losses import row_losses

SAMPLES = 8
ANSWERS_DEPEND_ON = ("lft", "torch", "transformers", "peft")
"""Packages whose other version might answer otherwise."""
END_BYTES = 2**16


@dataclass(frozen=True, slots=True)
class Question:
    """A row: what is asked, in words and in tokens, what is expected, and the whole row with labels."""

    prompt: str
    reference: str
    prompt_tokens: list[int]
    row: Mapping[str, Any]


def questions(finetuner: LLMFineTuner, prepared: Prepared, limit: int) -> list[Question]:
    """At most `limit` rows that have an answer: the last one is asked for.

    Held-out rows, or any where nothing is held out: no row of an adapter trained elsewhere was trained here. A plain text is
    cut in two: the second half is expected.
    """
    assert finetuner.tokenizer is not None
    rows = prepared.held_out if prepared.data.held_out else prepared.training
    is_text = prepared.manifest.style == "text"
    # where a row was cut before its last answer, what is left asks for something else
    starts, lengths = rows.column("answer_from"), rows.lengths
    rows = rows.take(spread(np.flatnonzero(((starts > 0) & (starts < lengths)) | is_text), limit))
    answers_from = rows.column("answer_from")
    found = []
    for index, example in enumerate(prepared.examples(rows)):
        if is_text:
            prompt, reference = halves(example.contents[0])
            asked = prompt_tokens(finetuner.tokenizer, "text", [prompt])[0]
        else:
            answer = max(turn for turn, role in enumerate(example.roles) if role == "assistant")
            prompt, reference = "\n".join(example.contents[:answer]).strip(), example.contents[answer].strip()
            asked = rows[index]["input_ids"][: answers_from[index]].tolist()
        if asked and reference:
            found.append(Question(prompt, reference, asked, rows[index]))
    return found


def spread(numbers: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """At most `limit` of them, evenly from all: the first ones would be of the first source alone."""
    taken = min(limit, len(numbers))
    return numbers[np.arange(taken) * len(numbers) // max(taken, 1)]


def halves(text: str) -> tuple[str, str]:
    """A text cut in two, at the white space next to its middle; where it has none, between characters."""
    text = text.strip()
    middle = len(text) // 2
    spaces = [found.span() for found in re.finditer(r"\s+", text)]
    start, end = min(spaces, key=lambda span: abs(span[0] - middle), default=(middle, middle))
    return text[:start], text[end:]


def batches(asked: list[Question], batch_size: int) -> list[Piece]:
    """The work: batches of prompts of similar length, for both models."""
    return pieces(length_batches([len(question.prompt_tokens) for question in asked], batch_size))


def digest(order: WorkerOrder, asked: list[Question], adapter: Path) -> str:
    """Of all that the answers depend on: answers with another digest are none to go on with."""
    settings, whole = order.settings, hashlib.sha256()
    facts = {
        "model": [settings.model.model_dump(mode="json"), _files_of(settings.model.name)],
        "generation": [settings.benchmark.max_new_tokens, settings.benchmark.batch_size],
        "computed": [order.device, order.precision, order.strategy],
        "versions": [metadata.version(name) for name in ANSWERS_DEPEND_ON],
    }
    whole.update(json.dumps(facts).encode())
    for question in asked:
        whole.update(json.dumps(question.prompt_tokens).encode())
        whole.update(np.asarray(question.row["input_ids"]).tobytes() + np.asarray(question.row["labels"]).tobytes())
    for path in sorted(adapter.glob("adapter_*")):
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:16]


def _files_of(model: str) -> list[tuple[str, int, str]]:
    """Name, size and ends of the files of a base model on this machine: others may have been put in their place.

    Nothing that differs between nodes with copies of their own, whose answers would not be each other's.
    """
    if not looks_local(model):
        return []
    path = expanded(model)
    files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
    return [(each.name, each.stat().st_size, _ends(each)) for each in files]


def _ends(path: Path) -> str:
    with path.open("rb") as file:
        first = file.read(END_BYTES)
        file.seek(max(0, path.stat().st_size - END_BYTES))
        return hashlib.sha256(first + file.read()).hexdigest()


def answer_share(
    finetuner: LLMFineTuner,
    asked: list[Question],
    work: SharedWork,
    max_new_tokens: int,
    tell_step: Callable[[int, int], None],
) -> None:
    """Answer the pieces that this rank takes, and keep each; `tell_step` is told how many are done, and may raise."""
    assert finetuner.tokenizer is not None

    def tell() -> None:
        tell_step(work.done(), len(work.work))

    tell()
    for piece in work.take():
        questions_ = [asked[index] for index in piece.batch]
        prompts, rows = [question.prompt_tokens for question in questions_], [question.row for question in questions_]
        with finetuner.measuring(use_finetuned=piece.model == "tuned") as model:
            answers = generate_answers(model, finetuner.tokenizer, prompts, max_new_tokens, tell)
            losses = row_losses(model, int(finetuner.tokenizer.pad_token_id), rows)
        lines = [
            {"index": index, "answer": answer.text, "generated": answer.tokens, "loss": loss, "tokens": tokens}
            for index, answer, (loss, tokens) in zip(piece.batch, answers, losses, strict=True)
        ]
        work.keep(piece, lines)
        tell()


def write_answers(path: Path, asked: list[Question], lines: dict[Model, list[Line]]) -> list[dict[str, str]]:
    """All prompts with what is expected and both answers, as JSON lines in `path`; returns the first few."""
    rows = [
        {"prompt": question.prompt, "reference": question.reference}
        | {model: str(lines[model][number]["answer"]) for model in MODELS}
        for number, question in enumerate(asked)
    ]
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return rows[:SAMPLES]
