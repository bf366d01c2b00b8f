"""The job of answering and scoring; apart from that of training, which does not need the second that importing it takes."""

import re
import shlex
import time
from pathlib import Path
from typing import Any

from lft.core.errors import DataError
from lft.core.hardware import cpu_cores
from lft.core.local_metric import ROUGE
from lft.core.order import WorkerReport
from lft.core.run_dir import Attempt, RunDir
from lft.core.words import counted
from lft.data.prepared import Prepared
from lft.train import benchmark as bench
from lft.train.answers import MODELS, SharedWork
from lft.train.finetuner import LLMFineTuner
from lft.train.generation import room
from lft.train.jobs import Desk, load_model, make_finetuner, prepared_data
from lft.train.local_metric import load_metrics
from lft.train.memory import translating_out_of_memory
from lft.train.scoring import score


def benchmark(desk: Desk) -> dict[str, Any]:
    """Answer a share of the prompts with base and tuned model; rank 0 also scores all answers."""
    order, settings, attempt = desk.order, desk.order.settings, Attempt(desk.order.attempt_dir)
    finetuner = make_finetuner(desk)
    metrics = load_metrics(settings.benchmark.metrics) if desk.rank.is_main else []
    prepared = prepared_data(finetuner, desk)
    check_held_out(prepared, desk)
    finetuner.load_tokenizer(revision=settings.model.revision, trust_remote_code=settings.model.trust_remote_code)
    asked = bench.questions(finetuner, prepared, settings.benchmark.num_prompts)
    if not asked:
        finetuner.announce("benchmark  no held-out row has a prompt and an answer; see data.held_out")
        return {}
    if ROUGE in settings.benchmark.metrics:
        tell_unscored(finetuner, asked)
    digest = bench.digest(order, asked, Path(finetuner.output_dir))
    work = SharedWork(RunDir(settings.output_dir), attempt, digest, bench.batches(asked, settings.benchmark.batch_size))
    if work.found:
        finetuner.announce(f"benchmark  {work.found} of {len(work.work)} batches are answered already")
    if work.found < len(work.work):
        desk.enter("loading the model")
        load_model(finetuner, desk)
        tell_cut(finetuner, asked, settings.benchmark.max_new_tokens)
    desk.enter("answering")
    started = time.monotonic()
    with translating_out_of_memory():
        bench.answer_share(finetuner, asked, work, settings.benchmark.max_new_tokens, desk.tell_step)
    if not desk.rank.is_main:
        return {}

    def wait() -> None:
        # without a beat: where no rank goes on, that is a hang
        desk.tell_step(work.done(), len(work.work)) if work.done() != desk.heart.last.step else desk.check_stop()

    lines, seconds = work.collect(wait), time.monotonic() - started
    desk.enter("scoring")
    found = {
        "prompts": len(asked),
        "seconds": seconds,
        "generated": {model: sum(line["generated"] for line in lines[model]) for model in MODELS},
        "samples": bench.write_answers(attempt.answers, asked, lines),
        **score(
            [question.reference for question in asked],
            lines,
            settings.benchmark.metrics,
            metrics,
            processes=cpu_cores(),
            between=desk.keep_on,
        ),
    }
    work.finish()
    return {"benchmark": found}


def tell_cut(finetuner: LLMFineTuner, asked: list[bench.Question], max_new_tokens: int) -> None:
    """Both models are asked the same, but not what the data says."""
    most = room(finetuner.model, max_new_tokens)
    cut = sum(len(question.prompt_tokens) > most for question in asked) if most else 0
    if cut:
        finetuner.announce(
            f"benchmark  {counted(cut, 'prompt')} of more than {most:,} tokens asked without the beginning, to leave room for "
            f"an answer of {max_new_tokens} (benchmark.max_new_tokens)"
        )


def tell_unscored(finetuner: LLMFineTuner, asked: list[bench.Question]) -> None:
    """The reference implementation of ROUGE drops every letter that is not one of a to z."""
    unscored = sum(not re.search("[a-z0-9]", question.reference.lower()) for question in asked)
    if unscored:
        finetuner.announce(
            f"benchmark  ROUGE counts words of a to z and 0 to 9 alone; {unscored:,} of {len(asked):,} texts have none: "
            "go by the loss, or name a metric of your own (benchmark.metrics)"
        )


def check_held_out(prepared: Prepared, desk: Desk) -> None:
    """Raise DataError where a run's data has changed since: rows it was trained on would be asked as held out.

    What was trained on is read from the newest report of a training; a node that has none believes the others.
    """
    settings = desk.order.settings
    if desk.order.adapter is not None or not settings.data.held_out:
        return
    for attempt in reversed(RunDir(settings.output_dir).attempts()):
        path = attempt.report("train", 0)
        trained = WorkerReport.load(path).metrics.get("held_out_digest") if path.exists() else None
        if trained == prepared.held_out_digest:
            return
        if trained is not None:
            elsewhere = shlex.join(["lft", "benchmark", str(settings.output_dir), "--dataset", "SOURCE"])
            raise DataError(
                "the data has changed since the training, and so have the rows that are held out of it",
                next_step=f"put it back, or benchmark on any rows: {elsewhere}",
            )
