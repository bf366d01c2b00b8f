"""The loss of held-out rows while training: every rank takes its share, on the model as it is wrapped."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import distributed

from lft.data.shard_format import IGNORED
from lft.data.token_rows import TokenRows
from lft.train.batches import PackRows, PadToLongest
from lft.train.process_group import agree
from lft.train.sampling import micro_batches
from lft.train.trainer import LoraTrainer


class HeldOutLoss:
    """Measures the mean loss of a trained token of `rows`, without dropout and without touching a random generator."""

    def __init__(self, trainer: LoraTrainer, rows: TokenRows, stop_asked: Callable[[], bool]) -> None:
        self.trainer, self.rows, self.stop_asked = trainer, rows, stop_asked
        trains_with = trainer.data_collator
        assert isinstance(trains_with, PackRows | PadToLongest)
        self.collate = PadToLongest(trains_with.pad_token_id, selects_logits=trains_with.selects_logits)

    @torch.no_grad()
    def measure(self) -> float | None:
        """The loss; None where a stop was asked for meanwhile, on any rank. Every rank must call it."""
        trainer, model = self.trainer, self.trainer.model_wrapped
        device = trainer.args.device
        summed = torch.zeros(2, dtype=torch.float64, device=device)
        model.eval()
        try:
            for batch in self._batches():
                if agree(self.stop_asked(), "cuda" if device.type == "cuda" else "cpu"):
                    return None
                summed += self._losses(batch)
                trainer.callback_handler.on_prediction_step(trainer.args, trainer.state, trainer.control)
        finally:
            model.train()
        if distributed.is_initialized():
            distributed.all_reduce(summed)
        loss, tokens = summed.tolist()
        return float(loss / max(tokens, 1))

    def _batches(self) -> list[list[int]]:
        """This rank's, rows of similar length together; as many as every other rank's, so that the last may be empty."""
        by_length = self.rows.lengths.argsort(kind="stable")
        rank = self.trainer.rank
        return micro_batches(by_length, self.trainer.args.per_device_train_batch_size, rank.rank, rank.world_size)

    def _losses(self, numbers: list[int]) -> torch.Tensor:
        """(2,): the sum of the losses of a batch, and how many tokens are trained in it."""
        trainer = self.trainer
        inputs = trainer._prepare_inputs(self.collate([self.rows[number] for number in numbers]))
        labels = inputs.pop("labels")
        assert isinstance(labels, torch.Tensor)
        assert trainer.compute_loss_func is not None
        with trainer.trained_tokens.of(labels) if trainer.trained_tokens else nullcontext():
            outputs = trainer.model_wrapped(**inputs)
        loss = trainer.compute_loss_func(outputs, labels, num_items_in_batch=1)
        return torch.stack([loss.double(), (labels[:, 1:] != IGNORED).sum().double()])
