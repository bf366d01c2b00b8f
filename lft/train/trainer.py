"""transformers.Trainer, fed in lft's global order and told to compute lft's loss."""

import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback
from transformers.utils.import_utils import is_torch_tf32_available

from lft.core.errors import CallOrderError
from lft.core.precision import Device, uses_autocast
from lft.core.rank import Rank
from lft.core.settings import Precision, TrainingSettings
from lft.core.words import counted, percent
from lft.data.packing import PackedRows, pack
from lft.data.token_rows import TokenRows
from lft.train.adapter import gather_adapter, write_adapter
from lft.train.batches import PackRows, PadToLongest
from lft.train.checkpoint import complete, make_room
from lft.train.engine import Engine
from lft.train.isolation import assert_isolated
from lft.train.loss import TrainedTokens, global_batch_loss
from lft.train.sampling import RankBatchSampler
from lft.train.strategy import fsdp_precision, is_spread


class LoraTrainer(Trainer):
    """A Trainer whose batches follow lft's order and whose checkpoints hold the whole adapter, under every strategy."""

    def __init__(
        self,
        rank: Rank,
        items: TokenRows | PackedRows,
        trained_tokens: TrainedTokens | None,
        *,
        group_by_length: bool,
        label_smoothing: float = 0.0,
        **options: Any,
    ) -> None:
        own_logits = partial(global_batch_loss, label_smoothing=label_smoothing)
        loss = trained_tokens.global_batch_loss if trained_tokens else own_logits
        super().__init__(train_dataset=items, compute_loss_func=loss, **options)
        self.rank, self.items, self.group_by_length = rank, items, group_by_length
        self.trained_tokens = trained_tokens

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

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write adapter and tokenizer. All ranks gather, rank 0 writes; the Trainer would gather the frozen base too."""
        assert isinstance(self.model, PeftModel)
        assert isinstance(self.processing_class, PreTrainedTokenizerBase)
        weights = gather_adapter(self.model)
        if self.rank.is_main:
            folder = Path(output_dir or str(self.args.output_dir))
            write_adapter(self.model, weights, folder)
            self.processing_class.save_pretrained(folder)

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        """Leave a run alone that goes on from its last step: the Trainer would make one more (transformers 5.23)."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*arguments, **options)  # type: ignore[no-untyped-call]
        else:
            self.control.should_training_stop = True

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        make_room(folder, is_main=self.rank.is_main)
        super()._save_checkpoint(model, trial)
        complete(folder, self.state.global_step, is_main=self.rank.is_main)


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
        save_strategy="epoch" if settings.save_every == "epoch" else "steps",
        save_steps=500 if settings.save_every == "epoch" else settings.save_every,
        average_tokens_across_devices=True,
        # without it DDP puts its buckets together anew after the first backward pass, so that the first step after a resume
        # sums in another order, and from 3 ranks on a resumed adapter is no longer exactly the uninterrupted one
        ddp_find_unused_parameters=True,
        dataloader_pin_memory=device == "cuda",
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
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


def can_select_logits(model: PeftModel) -> bool:
    """Whether the model's forward takes logits_to_keep; most of transformers' causal models do.

    Not where its layers are on several GPUs: the positions are on the first one, the hidden states on the last.
    """
    takes_it = "logits_to_keep" in inspect.signature(model.get_base_model().forward).parameters
    return takes_it and not is_spread(model)


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


def make_trainer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    items: TokenRows | PackedRows,
    arguments: TrainingArguments,
    rank: Rank,
    callbacks: Sequence[TrainerCallback],
    trained_tokens: TrainedTokens | None,
    settings: TrainingSettings,
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
        model=model,
        args=arguments,
        data_collator=collate(int(tokenizer.pad_token_id), selects_logits=selects_logits),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    if is_packed:
        trainer.add_callback(CheckIsolation(trainer))
    return trainer
