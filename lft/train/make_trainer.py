"""The trainer of a run, with all that watches over it."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from peft import PeftModel
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from lft.core.checkpoints import step_of, to_remove
from lft.core.precision import Device
from lft.core.rank import Rank
from lft.core.run_dir import RunDir
from lft.core.settings import Precision, Strategy, TrainingSettings
from lft.data.packing import PackedRows
from lft.data.token_rows import TokenRows
from lft.train.batches import PackRows, PadToLongest
from lft.train.checkpoint_writer import CheckpointWriter, TellSave
from lft.train.evaluation import HeldOutLoss
from lft.train.loss import TrainedTokens
from lft.train.saving import Due, SaveAndStop
from lft.train.strategy import check_order, is_spread, layer_classes, strategy_arguments
from lft.train.trackers import trackers_of
from lft.train.trainer import CheckIsolation, LoraTrainer, training_arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Meanwhile:
    """What else goes on while the adapter trains."""

    stop_asked: Callable[[], bool] = lambda: False
    """Once true on any rank, training ends after the step, saved, with StoppedError."""
    told_of_save: TellSave = lambda _step, _seconds: None
    """Hears of each checkpoint."""
    held_out: TokenRows | None = None
    """Rows whose loss is measured as often as training.evaluate_every says."""
    announce: Callable[[str], None] = lambda _: None
    """Is told where trackers are to be looked at."""


class StrategyOrder(NamedTuple):
    """How the ranks are to share the work."""

    strategy: Strategy
    rank: Rank
    device: Device
    deepspeed: dict[str, Any] | None
    precision: Precision


def run_arguments(
    model: PeftModel, settings: TrainingSettings, accumulation: int, folder: Path, order: StrategyOrder
) -> TrainingArguments:
    """The Trainer's arguments, accelerate being told the strategy. Raises PreflightError where it cannot be had."""
    strategy, rank, device, deepspeed, precision = order
    check_order(strategy, rank.world_size, deepspeed, settings, accumulation)
    layers = layer_classes(model)
    shared = strategy_arguments(strategy, rank, device, deepspeed=deepspeed, precision=precision, layers=layers)
    return training_arguments(settings, accumulation, folder, device, precision, shared)


def make_trainer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    items: TokenRows | PackedRows,
    arguments: TrainingArguments,
    rank: Rank,
    callbacks: Sequence[TrainerCallback],
    trained_tokens: TrainedTokens | None,
    settings: TrainingSettings,
    precision: Precision,
    resume_from: Path | None,
    meanwhile: Meanwhile,
    loraplus_lr_ratio: float | None = None,
) -> LoraTrainer:
    """A trainer for `items`, rows or packs, which the batch sizes count; it prints nothing, callbacks say what happens."""
    is_packed = isinstance(items, PackedRows)
    selects_logits = trained_tokens is None and can_select_logits(model)
    collate = PackRows if is_packed else PadToLongest
    trainer = LoraTrainer(
        rank,
        items,
        trained_tokens,
        group_by_length=settings.group_by_length and not is_packed,
        label_smoothing=settings.label_smoothing,
        precision=precision,
        writer=_writer(Path(str(arguments.output_dir)), settings, meanwhile) if rank.is_main else None,
        resume_from=resume_from,
        loraplus_lr_ratio=loraplus_lr_ratio,
        model=model,
        args=arguments,
        data_collator=collate(int(tokenizer.pad_token_id), selects_logits=selects_logits),
        processing_class=tokenizer,
        callbacks=[*callbacks, *(_trackers(arguments, settings, resume_from, meanwhile) if rank.is_main else ())],
    )
    trainer.remove_callback(PrinterCallback)
    if is_packed:
        trainer.add_callback(CheckIsolation(trainer))
    trainer.add_callback(_saving(trainer, settings, meanwhile))
    return trainer


def _writer(output_dir: Path, settings: TrainingSettings, meanwhile: Meanwhile) -> CheckpointWriter:
    out_of_date = partial(to_remove, output_dir, settings.keep_last, keep_best=settings.keep_best)
    return CheckpointWriter(output_dir, out_of_date, meanwhile.told_of_save)


def _trackers(
    arguments: TrainingArguments, settings: TrainingSettings, resume_from: Path | None, meanwhile: Meanwhile
) -> list[TrainerCallback]:
    first_step = step_of(resume_from) if resume_from else 0
    return trackers_of(settings.trackers, RunDir(Path(str(arguments.output_dir))), first_step, meanwhile.announce)


def _saving(trainer: LoraTrainer, settings: TrainingSettings, meanwhile: Meanwhile) -> SaveAndStop:
    """The last callback: when it saves, the others have seen the step."""
    device: Device = "cuda" if trainer.args.device.type == "cuda" else "cpu"
    held_out = (
        HeldOutLoss(trainer, meanwhile.held_out, meanwhile.stop_asked) if meanwhile.held_out is not None else None
    )
    save, evaluate = Due(settings.save_every), Due(settings.evaluate_every)
    return SaveAndStop(trainer, save, evaluate, held_out, meanwhile.stop_asked, device, keep_best=settings.keep_best)


def can_select_logits(model: PeftModel) -> bool:
    """Whether the model's forward takes logits_to_keep; most of transformers' causal models do.

    Not where its layers are on several GPUs: the positions are on the first one, the hidden states on the last.
    """
    takes_it = "logits_to_keep" in inspect.signature(model.get_base_model().forward).parameters
    return takes_it and not is_spread(model)
