"""transformers.Trainer, fed in lft's global order and told to compute lft's loss."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import PeftModel
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from lft.core.precision import Device
from lft.core.rank import Rank
from lft.core.settings import Precision, TrainingSettings
from lft.train.adapter import gather_adapter, write_adapter
from lft.train.batches import PadToLongest, RankBatchSampler
from lft.train.checkpoint import complete, make_room
from lft.train.engine import uses_autocast
from lft.train.loss import TrainedTokens, global_batch_loss
from lft.train.strategy import fsdp_precision, is_spread


class LoraTrainer(Trainer):
    """A Trainer whose batches follow lft's order and whose checkpoints hold the whole adapter, under every strategy."""

    def __init__(self, rank: Rank, tokens: Dataset, trained_tokens: TrainedTokens | None, **options: Any) -> None:
        loss = trained_tokens.global_batch_loss if trained_tokens else global_batch_loss
        super().__init__(train_dataset=tokens, compute_loss_func=loss, **options)
        self.rank, self.tokens, self.trained_tokens = rank, tokens, trained_tokens

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """The Trainer's, which calls compute_loss_func and scales by the number of ranks."""
        if self.trained_tokens is None:
            return super().compute_loss(model, inputs, *arguments, **options)
        with self.trained_tokens.of(inputs["labels"]):
            return super().compute_loss(model, inputs, *arguments, **options)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This rank's micro-batches. Not handed to accelerate, which would shard them once more.

        A resumed run starts in the middle of an epoch: there accelerate's skip_first_batches drops lists of row numbers
        from the sampler; no row of a skipped batch is read.
        """
        sampler = RankBatchSampler(len(self.tokens), self.args.per_device_train_batch_size, self.rank, self.args.seed)
        return EpochLoader(self.tokens, batch_sampler=sampler, collate_fn=self.data_collator)

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
        seed=settings.seed,
        fp16=precision == "fp16",
        bf16=precision == "bf16" and autocast,
        use_cpu=device == "cpu",
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,  # it would hide a loss that is not finite
        save_strategy="epoch" if settings.save_every == "epoch" else "steps",
        save_steps=500 if settings.save_every == "epoch" else settings.save_every,
        average_tokens_across_devices=True,
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


def can_select_logits(model: PeftModel) -> bool:
    """Whether the model's forward takes logits_to_keep; most of transformers' causal models do.

    Not where its layers are on several GPUs: the positions are on the first one, the hidden states on the last.
    """
    takes_it = "logits_to_keep" in inspect.signature(model.get_base_model().forward).parameters
    return takes_it and not is_spread(model)


def make_trainer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Dataset,
    arguments: TrainingArguments,
    rank: Rank,
    callbacks: Sequence[TrainerCallback],
    trained_tokens: TrainedTokens | None = None,
) -> LoraTrainer:
    """A trainer for `tokens` (columns input_ids and labels); it prints nothing, callbacks say what happens."""
    selects_logits = trained_tokens is None and can_select_logits(model)
    trainer = LoraTrainer(
        rank,
        tokens,
        trained_tokens,
        model=model,
        args=arguments,
        data_collator=PadToLongest(int(tokenizer.pad_token_id), selects_logits=selects_logits),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
