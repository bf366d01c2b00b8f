"""The benchmark of a finished run: base and tuned model on held-out rows, shared out over the ranks through files.

No process group: each rank answers its batches and writes JSON lines; rank 0 waits for the files and scores. The batches are
cut for all ranks alike, so the scores do not depend on the number of ranks.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lft.core.files import aside
from lft.core.rank import Rank
from lft.core.settings import BenchmarkSettings
from lft.data.prepared import Prepared
from lft.publish.significance import paired_difference
from lft.train.finetuner import LLMFineTuner
from lft.train.generation import generate_answers, length_batches, prompt_tokens, row_losses
from lft.train.rouge import NAMES, mean_scores, rouge_scores

MODELS = ("base", "tuned")
SAMPLES = 3
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Question:
    """A held-out row: what is asked, in words and in tokens, what is expected, and the whole row with labels."""

    prompt: str
    reference: str
    prompt_tokens: list[int]
    row: Mapping[str, Any]


def questions(finetuner: LLMFineTuner, prepared: Prepared, limit: int) -> list[Question]:
    """At most `limit` held-out rows that have an answer: the last one is asked for.

    A plain text is cut in two: the second half is expected.
    """
    assert finetuner.tokenizer is not None
    held_out, is_text = prepared.held_out, prepared.manifest.style == "text"
    rows = held_out.take(np.flatnonzero((held_out.column("answer_from") > 0) | is_text)[:limit])
    answers_from = rows.column("answer_from")
    found = []
    for index, example in enumerate(prepared.examples(rows)):
        if is_text:
            words = example.contents[0].split()
            prompt, reference = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
            asked = prompt_tokens(finetuner.tokenizer, "text", [prompt])[0]
        else:
            answer = max(turn for turn, role in enumerate(example.roles) if role == "assistant")
            prompt, reference = "\n".join(example.contents[:answer]).strip(), example.contents[answer].strip()
            asked = rows[index]["input_ids"][: answers_from[index]].tolist()
        if asked and reference:
            found.append(Question(prompt, reference, asked, rows[index]))
    return found


def answer_share(
    finetuner: LLMFineTuner,
    asked: list[Question],
    settings: BenchmarkSettings,
    rank: Rank,
    path: Path,
    tell_step: Callable[[int, int], None],
) -> None:
    """Answer this rank's batches with both models and write one JSON line a question to `path`, whole or not at all."""
    assert finetuner.tokenizer is not None
    prompts = [question.prompt_tokens for question in asked]
    batches = length_batches([len(prompt) for prompt in prompts], settings.batch_size)[rank.rank :: rank.world_size]
    lines: dict[int, dict[str, Any]] = {index: {"index": index} for batch in batches for index in batch}
    for turn, name in enumerate(MODELS):
        with finetuner.measuring(use_finetuned=name == "tuned") as model:
            for done, batch in enumerate(batches, start=turn * len(batches)):
                tell_step(done, len(MODELS) * len(batches))
                answers = generate_answers(
                    model, finetuner.tokenizer, [prompts[index] for index in batch], settings.max_new_tokens
                )
                rows = [asked[index].row for index in batch]
                losses = row_losses(model, int(finetuner.tokenizer.pad_token_id), rows)
                for index, answer, (loss, tokens) in zip(batch, answers, losses, strict=True):
                    lines[index][name] = {"answer": answer, "loss": loss, "tokens": tokens}
    with aside(path) as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines.values()), encoding="utf-8")


def collect(paths: list[Path], check_stop: Callable[[], None]) -> list[dict[str, Any]]:
    """All ranks' lines in the order of the questions, as soon as all files are there.

    A rank that fails never writes its file; its launcher notices and ends this process too.
    """
    while not all(path.exists() for path in paths):
        check_stop()
        time.sleep(POLL_SECONDS)
    lines = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(lines, key=lambda line: int(line["index"]))


def score(asked: list[Question], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Scores of both models, their differences with 95 % intervals, and the first few answers side by side.

    loss is the mean over trained tokens; its difference is weighted by each row's tokens accordingly.
    """
    references = [question.reference for question in asked]
    rouge = {name: rouge_scores([line[name]["answer"] for line in lines], references) for name in MODELS}
    tokens = [float(line["base"]["tokens"]) for line in lines]
    losses = {name: [line[name]["loss"] / max(line[name]["tokens"], 1) for line in lines] for name in MODELS}
    result: dict[str, Any] = {"prompts": len(asked)}
    for name in MODELS:
        mean_loss = sum(line[name]["loss"] for line in lines) / max(sum(tokens), 1.0)
        result[name] = {**mean_scores(rouge[name]), "loss": mean_loss}
    result["difference"] = {
        metric: paired_difference(rouge["base"][metric], rouge["tuned"][metric]).to_dict() for metric in NAMES
    }
    result["difference"]["loss"] = paired_difference(losses["base"], losses["tuned"], tokens).to_dict()
    result["samples"] = [
        {
            "prompt": question.prompt,
            "reference": question.reference,
            **{name: line[name]["answer"] for name in MODELS},
        }
        for question, line in list(zip(asked, lines, strict=True))[:SAMPLES]
    ]
    return result
