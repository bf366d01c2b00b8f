"""transformers.Trainer, fed in lft's global order and told to compute lft's loss."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import DistributedType
from datasets import Dataset
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.utils.import_utils import is_torch_tf32_available

from lft.core.errors import CallOrderError
from lft.core.precision import Device, uses_autocast
from lft.core.rank import Rank
from lft.core.settings import Precision, TrainingSettings
from lft.core.words import counted, percent
from lft.data.packing import PackedRows, pack
from lft.data.token_rows import TokenRows
from lft.train.adapter import adapter_files, gather_adapter, read_weights, trained_parameters
from lft.train.checkpoint import Snapshot, TrainingState, read_optimizer, read_ranks, read_state
from lft.train.checkpoint_writer import CheckpointWriter
from lft.train.engine import Engine
from lft.train.frozen_base import keep_base
from lft.train.isolation import assert_isolated
from lft.train.loss import TrainedTokens, global_batch_loss
from lft.train.optimizer_state import gather_optimizer, restore_optimizer
from lft.train.process_group import gather_on_main
from lft.train.random_state import RandomState, random_state, restore_random
from lft.train.sampling import RankBatchSampler, items_seen
from lft.train.schedule import go_to_step, loss_scale, restore_loss_scale
from lft.train.strategy import fsdp_precision, strategy_of

BY_DDP = (DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


class LoraTrainer(Trainer):
    """A Trainer whose batches follow lft's order and whose checkpoints hold the whole adapter, under every strategy."""

    def __init__(
        self,
        rank: Rank,
        items: TokenRows | PackedRows,
        trained_tokens: TrainedTokens | None,
        *,
        group_by_length: bool,
        precision: Precision = "fp32",
        writer: CheckpointWriter | None = None,
        resume_from: Path | None = None,
        label_smoothing: float = 0.0,
        loraplus_lr_ratio: float | None = None,
        **options: Any,
    ) -> None:
        self.label_smoothing = label_smoothing
        loss = trained_tokens.global_batch_loss if trained_tokens else self._logits_loss
        super().__init__(train_dataset=items, compute_loss_func=loss, **options)
        self.rank, self.items, self.group_by_length = rank, items, group_by_length
        self.trained_tokens, self.loraplus_lr_ratio = trained_tokens, loraplus_lr_ratio
        self.precision, self.writer, self.resume_from = precision, writer, resume_from
        self.done = read_state(resume_from) if resume_from else None
        """Where the run goes on from."""
        self.held_out_loss: float | None = None
        """After the newest step, where it was measured."""

    def _logits_loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        """As global_batch_loss; labels are smoothed in training only, so that held-out losses can be compared."""
        assert isinstance(self.model, nn.Module)
        smoothing = self.label_smoothing if self.model.training else 0.0
        return global_batch_loss(outputs, labels, num_items_in_batch, label_smoothing=smoothing)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """The Trainer's, which calls compute_loss_func and scales by the number of ranks."""
        if self.trained_tokens is None:
            return super().compute_loss(model, inputs, *arguments, **options)
        with self.trained_tokens.of(inputs["labels"]):
            return super().compute_loss(model, inputs, *arguments, **options)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This rank's micro-batches. Not handed to accelerate, which would shard them once more.

        A resumed run starts in the middle of an epoch: there accelerate's skip_first_batches drops lists of item numbers
        from the sampler, those before the cursor; no item of a skipped batch is read.
        """
        micro_batch = self.args.per_device_train_batch_size
        global_batch = micro_batch * self.args.gradient_accumulation_steps * self.rank.world_size
        group = global_batch if self.group_by_length else 0
        sampler = RankBatchSampler(self.items.lengths, micro_batch, self.rank, self.args.seed, group)
        return EpochLoader(self.items, batch_sampler=sampler, collate_fn=self.data_collator)  # type: ignore[arg-type]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The Trainer's, or with LoRA+ (Hayou et al. 2024, arXiv:2402.12354) one whose B matrices learn faster."""
        if self.loraplus_lr_ratio is None or self.optimizer is not None:
            return super().create_optimizer(model)
        trained: Any = model if model is not None else self.model
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, trained)
        options |= {"loraplus_lr_ratio": self.loraplus_lr_ratio, "loraplus_weight_decay": self.args.weight_decay}
        self.optimizer = create_loraplus_optimizer(trained, kind, **options)
        groups = self.optimizer.param_groups  # DeepSpeed cannot flatten one without parameters
        groups[:] = [group for group in groups if group["params"]]
        return self.optimizer

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Take a snapshot, on all ranks; rank 0 writes it while training goes on."""
        snapshot = self._snapshot()
        if self.writer is not None and snapshot is not None:
            self.writer.write(snapshot)

    def _snapshot(self) -> Snapshot | None:
        """The run between two steps, on rank 0. Every rank must call it."""
        assert isinstance(self.model, PeftModel)
        weights = gather_adapter(self.model)
        optimizer = gather_optimizer(self.model, self.optimizer)
        ranks = gather_on_main(random_state() | {"loss": self._tr_loss.detach().cpu().clone()})
        if not self.rank.is_main:
            return None
        assert self.lr_scheduler is not None
        state = TrainingState(
            step=self.state.global_step,
            schedule_steps=self.lr_scheduler.last_epoch,
            last_logged=self._globalstep_last_logged,
            log_history=[entry for entry in self.state.log_history if "loss" in entry],
            loss_scale=loss_scale(self.accelerator, self.optimizer),
        )
        items, micro_batch = len(self.items), self.args.per_device_train_batch_size
        global_batch = micro_batch * self.args.gradient_accumulation_steps * self.rank.world_size
        facts = {
            "step": state.step,
            "items_seen": items_seen(state.step, items, global_batch),
            "items": items,
            "global_batch": global_batch,
            "world_size": self.rank.world_size,
            "strategy": strategy_of(self.model_wrapped),
            "precision": self.precision,
            "held_out_loss": self.held_out_loss,
        }
        return Snapshot(adapter_files(self.model, weights), optimizer, ranks, state, facts)

    def _init_training_state(
        self, max_steps: int, steps_per_epoch: int, epochs: int, _resume: object, trial: object
    ) -> tuple[int, int]:
        """Where to begin: the epoch, and how many of its micro-batches are done."""
        super()._init_training_state(max_steps, steps_per_epoch, epochs, None, trial)
        if self.done is None:
            return 0, 0
        step = self.state.global_step = self.done.step
        self.state.log_history, self.state.epoch = list(self.done.log_history), step / steps_per_epoch
        epoch, steps_into = divmod(step, steps_per_epoch)
        return epoch, steps_into * self.args.gradient_accumulation_steps

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, _resume: object) -> Any:
        """Weights go into the model before it is wrapped, or cut; the optimizer's state when there is an optimizer."""
        if self.accelerator.distributed_type in BY_DDP and isinstance(self.model, PeftModel):
            keep_base(self.model)
        if self.resume_from is None or self.done is None:
            return super()._prepare_for_training(max_steps, train_dataloader, None)  # type: ignore[no-untyped-call]
        assert isinstance(self.model, PeftModel)
        read_weights(self.model, self.resume_from)
        weights = {name: parameter.detach().clone() for name, parameter in trained_parameters(self.model)}
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)  # type: ignore[no-untyped-call]
        restore_optimizer(self.model, self.optimizer, read_optimizer(self.resume_from), weights)
        restore_loss_scale(self.accelerator, self.optimizer, self.done.loss_scale)
        assert isinstance(self.lr_scheduler, LambdaLR)
        go_to_step(self.lr_scheduler, self.done.schedule_steps)
        return prepared

    def _run_epoch(self, **options: Any) -> None:  # type: ignore[override]  # which the Trainer calls so
        """Leave a run alone that goes on from its last step: the Trainer would make one more (transformers 5.23)."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        resumed = self.resume_from if options["epoch"] == options["epochs_trained"] else None
        if resumed is not None and self.done is not None:
            self._globalstep_last_logged = self.done.last_logged
            self._tr_loss += self._own_part(read_ranks(resumed))["loss"].to(self._tr_loss.device)
        super()._run_epoch(**options | {"resume_from_checkpoint": resumed})  # type: ignore[no-untyped-call]

    def _load_rng_state(self, checkpoint: Any) -> None:
        """Called by _run_epoch when the first batch of a resumed run has been drawn."""
        restore_random(self._own_part(read_ranks(checkpoint)))

    def _own_part(self, ranks: list[RandomState]) -> RandomState:
        """This rank's part of a checkpoint. Where other ranks took part, fresh generators and the mean of the losses."""
        if len(ranks) == self.rank.world_size:
            return ranks[self.rank.rank]
        set_seed(int(np.random.default_rng([self.args.seed, self.state.global_step, self.rank.rank]).integers(2**32)))
        return random_state() | {"loss": torch.stack([part["loss"] for part in ranks]).mean()}


class CheckIsolation(TrainerCallback):
    """Stops before the first step where the rows of a pack would see each other."""

    def __init__(self, trainer: LoraTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure it on the wrapped model, as it will train. Raises PreflightError."""
        assert isinstance(self.trainer.model, PeftModel)
        base = self.trainer.model.get_base_model()
        assert isinstance(base, PreTrainedModel)
        assert_isolated(self.trainer.model_wrapped, base, args.device)


class EpochLoader(DataLoader[Any]):
    """Passes the Trainer's set_epoch on to the sampler."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the shuffle of this epoch, counted from 0."""
        assert isinstance(self.batch_sampler, RankBatchSampler)
        self.batch_sampler.set_epoch(epoch)


def training_arguments(
    settings: TrainingSettings,
    accumulation: int,
    output_dir: Path,
    device: Device,
    precision: Precision,
    strategy: dict[str, Any],
) -> TrainingArguments:
    """The Trainer's arguments: GradScaler for fp16, no reports to any service.

    `strategy` is what `strategy_arguments` returned.
    """
    autocast = uses_autocast(precision, sharded=bool(strategy))
    arguments = TrainingArguments(
        output_dir=str(output_dir),
        num_train_epochs=settings.num_epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=settings.learning_rate,
        # transformers' "constant" would leave the warm-up out
        lr_scheduler_type="constant_with_warmup" if settings.lr_scheduler == "constant" else settings.lr_scheduler,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        **_kernels(settings, device, precision),
        seed=settings.seed,
        fp16=precision == "fp16",
        bf16=precision == "bf16" and autocast,
        use_cpu=device == "cpu",
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,  # it would hide a loss that is not finite
        save_strategy="no",  # SaveAndStop says when
        average_tokens_across_devices=True,
        # without it DDP puts its buckets together anew after the first backward pass, so that the first step after a resume
        # sums in another order, and from 3 ranks on a resumed adapter is no longer exactly the uninterrupted one
        ddp_find_unused_parameters=True,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",  # make_trainer adds the trackers that are named
        run_name=output_dir.name,
        **strategy,
    )
    arguments.device  # noqa: B018  counts the GPUs, which the next line corrects
    # accelerate launch may have left another one in the environment, which TrainingArguments believes
    arguments.mixed_precision = precision if autocast else "no"
    # a process that sees several GPUs and whose model fits one would otherwise be wrapped in DataParallel
    arguments._n_gpu = min(arguments.n_gpu, 1)
    if arguments.fsdp_plugin_args is not None:
        arguments.fsdp_plugin_args["mixed_precision_policy"] = fsdp_precision(precision)
    return arguments


def _kernels(settings: TrainingSettings, device: Device, precision: Precision) -> dict[str, Any]:
    """Other optimizers and kernels than the Trainer's own, as its arguments."""
    arguments: dict[str, Any] = {"optim": settings.optimizer} if settings.optimizer != "adamw" else {}
    if settings.liger:
        # its losses need whole rows or whole logits; lft's needs the hidden states of the trained tokens
        arguments |= {"use_liger_kernel": True}
        arguments |= {"liger_kernel_config": {"cross_entropy": False, "fused_linear_cross_entropy": False}}
    # products rounded to 10 bits, added up in float32: 8 times as fast on an A100
    if device == "cuda" and precision == "fp32" and is_torch_tf32_available():
        arguments["tf32"] = True
    return arguments


def token_rows(rows: Dataset | TokenRows, pad_token_id: int | None) -> TokenRows:
    """A caller's tokenized data set as rows of tokens. Raises CallOrderError where it is not tokenized."""
    if isinstance(rows, TokenRows):
        return rows
    if "input_ids" not in rows.column_names:
        raise CallOrderError("train() needs tokenized rows", next_step="pass what prepare_dataset() returns")
    return TokenRows.from_dataset(rows, pad_token_id)


def batch_items(
    rows: TokenRows, pack_size: int | None, seed: int, engine: Engine
) -> tuple[TokenRows | PackedRows, list[str]]:
    """What batches are made of, and lines about it: packs of at most `pack_size` tokens if the model can, else rows."""
    if pack_size is None:
        return rows, []
    if not engine.packs:
        return rows, ["packing    none in this model: batch sizes count rows, not packs"]
    packs = pack(rows.lengths, pack_size, seed)
    filled = f"{counted(len(packs), 'pack')} of at most {pack_size:,} tokens, {percent(packs.fill, 1)} filled"
    return PackedRows(rows, packs), [f"packing    {counted(len(rows), 'row')} in {filled}"]
