"""The two jobs a rank can be ordered to do: train, and benchmark a finished adapter. Each reads like the story of a run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from datasets import Dataset

from lft.core.beat import Heart
from lft.core.errors import StoppedError
from lft.core.events import EventWriter
from lft.core.order import STOPPED_EARLY, WorkerOrder
from lft.core.rank import Rank
from lft.core.run_dir import Attempt
from lft.core.settings import Precision
from lft.data.columns import recognise
from lft.data.split import split_held_out
from lft.train import benchmark as bench
from lft.train.batches import rows_seen
from lft.train.cpu_speed import WORTHWHILE, giga_flops
from lft.train.finetuner import LLMFineTuner
from lft.train.memory import peak_memory_bytes
from lft.train.process_group import agree, join, leave
from lft.train.progress import Beating, StopTogether, TellProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What a job has before it: its order, who it is, and whom it tells."""

    order: WorkerOrder
    rank: Rank
    enter: Callable[[str], None]
    events: EventWriter
    heart: Heart
    stop_asked: Callable[[], bool]

    def check_stop(self) -> None:
        """Raise StoppedError if a stop was asked for; the place for it is wherever nothing is half done."""
        if self.stop_asked():
            raise StoppedError(STOPPED_EARLY[self.order.job])

    def tell_step(self, step: int, total: int) -> None:
        """How far answering is; rank 0 speaks for all. Raises StoppedError if a stop was asked for."""
        self.check_stop()
        self.heart.beat(self.heart.last.stage, step, total)
        if self.rank.is_main:
            self.events.write("step", step=step, total=total)


def train(desk: Desk) -> dict[str, Any]:
    """Data, process group, model, adapter, training. Returns the metrics of this rank's report."""
    order, settings = desk.order, desk.order.settings
    training = settings.training
    finetuner = _finetuner(desk)
    desk.enter("reading data")
    finetuner.load_tokenizer(revision=settings.model.revision, trust_remote_code=settings.model.trust_remote_code)
    rows, held_out = _rows(finetuner, desk)
    finetuner.announce(f"split      {len(rows):,} rows to train on, {len(held_out):,} held out")
    desk.enter("tokenizing")
    tokens, _ = finetuner.prepare_dataset(rows, _columns(desk), settings.data.max_length, loss_on=_loss_on(desk))
    desk.enter("joining the other ranks")
    rendezvous, patience_seconds = Attempt(order.attempt_dir).rendezvous, settings.launch.join_timeout_seconds
    join(desk.rank, order.device, rendezvous, patience_seconds, order.terms())
    desk.enter("loading the model")
    _load_model(finetuner, desk)
    targets = settings.lora.target_modules
    finetuner.setup_lora(
        settings.lora.r,
        settings.lora.lora_alpha,
        settings.lora.lora_dropout,
        None if targets == "auto" else targets,
        seed=training.seed,
    )
    desk.enter("training")
    global_batch = training.batch_size * order.accumulation * order.world_size
    counts = finetuner.token_counts
    assert counts is not None
    progress = TellProgress(desk.events, tokens_per_step=global_batch * counts.tokens_per_row)
    stop = StopTogether(desk.stop_asked, order.device)
    finetuner.train(
        tokens,
        training.num_epochs,
        training.batch_size,
        training.learning_rate,
        gradient_accumulation_steps=order.accumulation,
        settings=training,
        callbacks=[Beating(desk.heart), *([progress] if desk.rank.is_main else []), stop],
        resume_from=order.resume_from,
    )
    leave()
    return _training_metrics(finetuner, progress, global_batch, desk)


def benchmark(desk: Desk) -> dict[str, Any]:
    """Answer this rank's share of the held-out prompts with base and tuned model; rank 0 also scores all of them."""
    order, settings, attempt = desk.order, desk.order.settings, Attempt(desk.order.attempt_dir)
    finetuner = _finetuner(desk)
    desk.enter("reading data")
    finetuner.load_tokenizer(revision=settings.model.revision, trust_remote_code=settings.model.trust_remote_code)
    _, held_out = _rows(finetuner, desk)
    if len(held_out) == 0:
        finetuner.announce("benchmark  no row was held out; data.held_out may be a number of rows")
        return {}
    rules = finetuner.token_rules(held_out, _columns(desk), settings.data.max_length, _loss_on(desk))
    asked = bench.questions(finetuner, held_out, rules, settings.benchmark.num_prompts)
    if not asked:
        finetuner.announce("benchmark  no held-out row has a prompt and an answer")
        return {}
    desk.enter("loading the model")
    _load_model(finetuner, desk)
    desk.enter("answering")
    started = time.monotonic()
    bench.answer_share(finetuner, asked, settings.benchmark, desk.rank, attempt.answers(desk.rank.rank), desk.tell_step)
    if not desk.rank.is_main:
        return {}
    desk.enter("scoring")
    lines = bench.collect([attempt.answers(rank) for rank in range(order.world_size)], desk.check_stop)
    return {"benchmark": {**bench.score(asked, lines), "seconds": time.monotonic() - started}}


def _finetuner(desk: Desk) -> LLMFineTuner:
    finetuner = LLMFineTuner(desk.order.settings.model.name, str(desk.order.settings.output_dir))
    order = desk.order
    finetuner.device, finetuner.strategy, finetuner.deepspeed = order.device, order.strategy, order.deepspeed
    if order.job == "benchmark" and order.strategy != "device-map":
        finetuner.strategy = "single"  # each rank answers for itself
    if desk.rank.is_main:
        finetuner.announce = lambda line: desk.events.write("notice", line=line)
    return finetuner


def _rows(finetuner: LLMFineTuner, desk: Desk) -> tuple[Dataset, Dataset]:
    """Training and held-out rows, the same on every rank and in every job."""
    data = desk.order.settings.data
    rows = finetuner.load_dataset_from_source(
        str(data.source), data.config, data.split, data.num_samples, data.data_files
    )
    return split_held_out(rows, recognise(rows, _columns(desk)).columns, data.held_out)


def _columns(desk: Desk) -> list[str] | None:
    columns = desk.order.settings.data.text_columns
    return list(columns) if columns else None


def _loss_on(desk: Desk) -> Literal["completion", "all"]:
    return "all" if desk.order.settings.data.loss_on == "all" else "completion"


def _load_model(finetuner: LLMFineTuner, desk: Desk) -> None:
    order, model = desk.order, desk.order.settings.model
    precision = order.precision
    if precision is None and order.device == "cpu":
        precision = _measured_precision(finetuner, order)
    finetuner.load_model(precision=precision, revision=model.revision, trust_remote_code=model.trust_remote_code)


def _measured_precision(finetuner: LLMFineTuner, order: WorkerOrder) -> Precision:
    """bf16 where it is faster on this CPU, else float32; all ranks decide alike."""
    single, half = giga_flops(torch.float32), giga_flops(torch.bfloat16)
    faster = not agree(half < WORTHWHILE * single, order.device)
    chosen: Precision = "bf16" if faster else "fp32"
    finetuner.announce(f"precision  {chosen}: measured {half:.0f} GFLOP/s in bf16, {single:.0f} in float32")
    return chosen


def _training_metrics(finetuner: LLMFineTuner, progress: TellProgress, global_batch: int, desk: Desk) -> dict[str, Any]:
    """Peak memory from every rank; the rest from rank 0, which speaks for all."""
    metrics: dict[str, Any] = {"peak_memory_bytes": peak_memory_bytes()}
    if not desk.rank.is_main:
        return metrics
    counts = finetuner.token_counts
    assert counts is not None
    assert finetuner.peft_model is not None
    trained, total = finetuner.peft_model.get_nb_trainable_parameters()
    rows = [rows_seen(steps, counts.kept, global_batch) for steps in (progress.first_step, progress.steps)]
    tokens = (rows[1] - rows[0]) * counts.tokens_per_row
    return metrics | {
        "steps": progress.steps,
        "first_step": progress.first_step,
        "seconds": progress.seconds,
        "tokens_per_second": tokens / max(progress.seconds, 1e-9),
        "global_batch_size": global_batch,
        "precision": finetuner.precision,
        "device": desk.order.device,
        "strategy": finetuner.strategy,
        "wrapper": finetuner.wrapper,
        "trainable_parameters": trained,
        "parameters": total,
        "losses": progress.losses,
        "data": {"rows": counts.rows, "kept": counts.kept, "cut": counts.cut, "dropped": counts.dropped},
    }
