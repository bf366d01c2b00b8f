"""What a rank is ordered to do: the job of training, and what every job begins with. Each reads like the story of a run."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch

from lft.core.beat import Heart
from lft.core.errors import DataError, StoppedError
from lft.core.events import EventWriter
from lft.core.hardware import cpu_cores
from lft.core.order import STOPPED_EARLY, WorkerOrder
from lft.core.rank import Rank
from lft.core.run_dir import Attempt
from lft.core.settings import Precision
from lft.data.audit import Audit
from lft.data.prepared import Prepared, audit_prepared
from lft.train.cpu_speed import WORTHWHILE, giga_flops
from lft.train.finetuner import LLMFineTuner
from lft.train.flops import device_peak
from lft.train.local_metric import load_metrics
from lft.train.make_trainer import Meanwhile
from lft.train.memory import peak_memory_bytes
from lft.train.process_group import agree, join, leave
from lft.train.progress import Beating, TellProgress

SECONDS_BETWEEN_NOTICES = 10.0


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
        is_new = step != self.heart.last.step
        self.heart.beat(self.heart.last.stage, step, total)
        if self.rank.is_main and is_new:
            self.events.write("step", step=step, total=total)

    def keep_on(self) -> None:
        """Something long is going on that has no steps. Raises StoppedError if a stop was asked for."""
        self.check_stop()
        self.heart.beat(self.heart.last.stage)

    def tell_save(self, step: int, seconds: float) -> None:
        """A checkpoint is written."""
        self.events.write("saved", step=step, seconds=round(seconds, 3))


def train(desk: Desk) -> dict[str, Any]:
    """Data, process group, model, adapter, training. Returns the metrics of this rank's report."""
    order, settings = desk.order, desk.order.settings
    training = settings.training
    finetuner = make_finetuner(desk)
    if desk.rank.is_main and settings.has_benchmark:
        load_metrics(settings.benchmark.metrics)  # one that cannot be loaded is known before hours of training
    prepared = prepared_data(finetuner, desk)
    audit = audit_prepared(prepared, finetuner.announce)
    desk.enter("joining the other ranks")
    rendezvous, patience_seconds = Attempt(order.attempt_dir).rendezvous, settings.launch.join_timeout_seconds
    join(desk.rank, order.device, rendezvous, patience_seconds, order.terms())
    desk.enter("loading the model")
    load_model(finetuner, desk)
    targets = settings.lora.target_modules
    finetuner.setup_lora(
        settings.lora.r,
        settings.lora.lora_alpha,
        settings.lora.lora_dropout,
        None if targets == "auto" else targets,
        seed=training.seed,
        variant=settings.lora,
    )
    desk.enter("training")
    assert finetuner.precision is not None
    peak = device_peak(order.device, finetuner.precision) if desk.rank.is_main else None
    devices = torch.cuda.device_count() if order.strategy == "device-map" else order.world_size
    progress = TellProgress(desk.events, order.world_size, peak * devices if peak else None)
    finetuner.train(
        prepared.training,
        training.num_epochs,
        training.batch_size,
        training.learning_rate,
        gradient_accumulation_steps=order.accumulation,
        settings=training,
        callbacks=[Beating(desk.heart), *([progress] if desk.rank.is_main else [])],
        resume_from=order.resume_from,
        pack_size=prepared.manifest.max_length if settings.data.packing else None,
        meanwhile=Meanwhile(
            stop_asked=desk.stop_asked,
            told_of_save=desk.tell_save,
            held_out=prepared.held_out if len(prepared.held_out) else None,
            announce=finetuner.announce,
        ),
    )
    leave()
    return _training_metrics(finetuner, progress, audit, prepared.held_out_digest, desk)


def make_finetuner(desk: Desk) -> LLMFineTuner:
    """The pipeline, told what the order says; rank 0 speaks for all."""
    order = desk.order
    finetuner = LLMFineTuner(order.settings.model.name, str(order.adapter or order.settings.output_dir))
    finetuner.device, finetuner.strategy, finetuner.deepspeed = order.device, order.strategy, order.deepspeed
    if desk.rank.is_main:
        finetuner.announce = lambda line: desk.events.write("notice", line=line)
    return finetuner


def prepared_data(finetuner: LLMFineTuner, desk: Desk) -> Prepared:
    """The data, the same on every rank and in every job; made by all ranks and cores together where the cache lacks it."""
    settings, rank = desk.order.settings, desk.rank
    desk.enter("preparing data")
    said = time.monotonic()

    def between(made: int, blocks: int) -> None:
        nonlocal said
        desk.keep_on()
        if time.monotonic() - said > SECONDS_BETWEEN_NOTICES:
            said = time.monotonic()
            finetuner.announce(f"data       {made:,} of {blocks:,} blocks tokenized")

    return finetuner.prepare_data(
        settings,
        processes=max(1, cpu_cores() // rank.local_world_size),
        between=between,
        rows_needed=rows_needed(desk.order),
    )


def rows_needed(order: WorkerOrder) -> int | None:
    """How many rows a run of max_steps can use at most, for a source that is streamed."""
    data, training = order.settings.data, order.settings.training
    if not data.streaming or training.max_steps is None:
        return None
    if data.packing and data.num_samples is None:
        raise DataError(
            "how many rows the packs of a streamed source hold is not known before they are read",
            next_step="say how many rows to read: --set data.num_samples=100000",
        )
    # the training's rows in any job, which may have other ranks: other rows would be held out
    global_batch = training.global_batch_size or training.batch_size * order.accumulation * order.world_size
    rows = training.max_steps * global_batch
    return ceil(rows / (1 - data.held_out) if data.held_out < 1 else rows + data.held_out)


def load_model(finetuner: LLMFineTuner, desk: Desk) -> None:
    """The base model as ordered; on a CPU in the faster number type where the order leaves it open."""
    order, model = desk.order, desk.order.settings.model
    precision = order.precision
    if precision is None and order.device == "cpu":
        precision = _measured_precision(finetuner, order)
    finetuner.load_model(
        precision=precision,
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        quantization=model.quantization,
    )


def _measured_precision(finetuner: LLMFineTuner, order: WorkerOrder) -> Precision:
    """bf16 where it is faster on this CPU, else float32; all ranks decide alike."""
    single, half = giga_flops(torch.float32), giga_flops(torch.bfloat16)
    faster = not agree(half < WORTHWHILE * single, order.device)
    chosen: Precision = "bf16" if faster else "fp32"
    finetuner.announce(f"precision  {chosen}: measured {half:.0f} GFLOP/s in bf16, {single:.0f} in float32")
    return chosen


def _training_metrics(
    finetuner: LLMFineTuner, progress: TellProgress, audit: Audit, held_out_digest: str, desk: Desk
) -> dict[str, Any]:
    """Peak memory from every rank; the rest from rank 0, which speaks for all."""
    metrics: dict[str, Any] = {"peak_memory_bytes": peak_memory_bytes()}
    if not desk.rank.is_main:
        return metrics
    assert finetuner.peft_model is not None
    training = desk.order.settings.training
    trained, total = finetuner.peft_model.get_nb_trainable_parameters()
    return metrics | {
        "steps": progress.steps,
        "first_step": progress.first_step,
        "seconds": progress.seconds,
        **progress.speed().model_dump(),
        **progress.done(),
        "peak_flops": progress.peak_flops,
        "global_batch_size": training.batch_size * desk.order.accumulation * desk.order.world_size,
        "precision": finetuner.precision,
        "device": desk.order.device,
        "strategy": finetuner.strategy,
        "wrapper": finetuner.wrapper,
        "gradient_checkpointing": training.gradient_checkpointing is True,
        "trainable_parameters": trained,
        "parameters": total,
        "losses": progress.losses,
        "held_out_losses": progress.held_out_losses,
        "data": audit.to_json(),
        "held_out_digest": held_out_digest,
    }
