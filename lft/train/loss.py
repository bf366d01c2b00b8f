"""The loss: cross entropy of the trained tokens, summed, divided by their number in the whole global batch.

A mean of means over micro-batches or ranks would weigh tokens of short rows more (transformers#34191).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft import PeftModel
from torch import nn
from torch.nn.functional import cross_entropy, linear
from transformers import PreTrainedModel

from lft.core.logits import CHUNK_LOGITS, what_changes_logits
from lft.data.shard_format import IGNORED


def predicting_positions(labels: torch.Tensor) -> torch.Tensor:
    """Positions at which some row of the batch predicts a trained token: the only ones whose logits are needed.

    labels (batch, tokens); the result (positions,) is ascending.
    """
    return (labels[:, 1:] != IGNORED).any(dim=0).nonzero()[:, 0]


def token_losses(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross entropy of each trained token, float32, and where it stands.

    logits (batch, tokens or predicting positions, vocabulary), labels (batch, tokens) with IGNORED for what is not
    trained; the logits at one position predict the label at the next. Returns losses (trained tokens,) and their row
    numbers (trained tokens,).
    """
    positions = predicting_positions(labels)
    if logits.shape[1] == labels.shape[1]:
        logits = logits[:, positions]
    targets = labels[:, positions + 1]
    trained = targets != IGNORED
    kept = logits[trained].float()
    losses = cross_entropy(kept, targets[trained], reduction="none", label_smoothing=label_smoothing)
    return losses, trained.nonzero()[:, 0]


def global_batch_loss(
    outputs: Any,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    *,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """This micro-batch's part of the global batch's mean loss; all parts add up to it.

    `num_items_in_batch` is the number of trained tokens of the global batch, over accumulation and ranks, as
    transformers.Trainer counts it.
    """
    losses, _ = token_losses(outputs.logits, labels, label_smoothing)
    count = num_items_in_batch if num_items_in_batch is not None else max(losses.numel(), 1)
    return losses.sum() / count


class ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of the cross entropies, without holding the logits: a chunk's gradient is computed right after its loss.

    With `smoothing` the wanted distribution is (1 - smoothing) on the target and smoothing / vocabulary on every token
    (Szegedy et al. 2016, arXiv:1512.00567), as torch's cross_entropy has it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        smoothing: float = 0.0,
    ) -> torch.Tensor:
        """Of hidden (tokens, width), with weight (vocabulary, width) and bias of the frozen projection, targets (tokens,)."""
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden)
        step = max(CHUNK_LOGITS // weight.shape[0], 1)
        for start in range(0, len(hidden), step):
            part, wanted = hidden[start : start + step], targets[start : start + step, None]
            logits = linear(part, weight, bias).float()
            highest, place = logits.max(dim=1, keepdim=True)
            total += (highest - (1 - smoothing) * logits.gather(1, wanted)).sum()
            if smoothing:
                total -= smoothing * logits.mean(dim=1).sum()
            # in place: a row stays in the processor's cache, where logsumexp() and exp() go through memory six times
            d_logits = torch.softmax(logits, dim=1, out=logits)
            total -= d_logits.gather(1, place).log().sum()  # 1 / vocabulary to 1: exact
            if smoothing:
                d_logits.sub_(smoothing / weight.shape[0])
            d_logits.scatter_add_(1, wanted, torch.full_like(highest, smoothing - 1))
            torch.mm(d_logits.to(hidden.dtype), weight, out=gradient[start : start + step])
            del logits, d_logits  # before the next chunk
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, factor: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradient of `hidden`; nothing else is trained here."""
        (gradient,) = ctx.saved_tensors
        return gradient * factor.to(gradient.dtype), None, None, None, None


def _base(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    return cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)


class TrainedTokens:
    """Makes the output projection of a model return the loss of its trained tokens in place of their logits.

    It happens inside of the model's forward, where DDP, ZeRO and FSDP2 have the weights at hand, and only while `of` is
    entered. Gemma's soft caps and the like are applied after the projection: `problem` says where it cannot be done.
    """

    def __init__(self, model: PeftModel, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing
        head = _base(model).get_output_embeddings()
        assert isinstance(head, nn.Linear)
        self.head = head
        self._labels: torch.Tensor | None = None
        self._exact = torch.zeros(())
        self._plain_forward = head.forward
        head.forward = self._forward  # type: ignore[method-assign, assignment]

    @staticmethod
    def problem(model: PeftModel | PreTrainedModel) -> str | None:
        """Why the model's own logits have to be used; None where they need not."""
        base = _base(model)
        head = base.get_output_embeddings()
        if head is not None and any(parameter.requires_grad for parameter in head.parameters()):
            return "the output projection is trained"
        if type(head) is not nn.Linear:
            return f"the output projection is a {type(head).__name__}"
        changed = what_changes_logits(vars(base.config))
        return f"the model changes its logits by {changed}" if changed else None

    @contextmanager
    def of(self, labels: torch.Tensor) -> Iterator[None]:
        """Within it, a forward pass of the model on one batch returns its loss as `logits`; labels (rows, tokens)."""
        self._labels = labels
        try:
            yield
        finally:
            self._labels = None

    def _forward(self, hidden: torch.Tensor) -> torch.Tensor:
        if self._labels is None:
            return self._plain_forward(hidden)
        labels = self._labels.to(hidden.device)
        trained = labels[:, 1:] != IGNORED
        weight, bias = self.head.weight, self.head.bias
        kept = hidden[:, :-1][trained].to(weight.dtype)
        loss: torch.Tensor = ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            kept, weight, bias, labels[:, 1:][trained], self.label_smoothing if self.head.training else 0.0
        )
        self._exact = loss.detach()
        return loss.view(1, 1, 1)

    def global_batch_loss(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """As `global_batch_loss`, of what the model returned within `of`."""
        count = num_items_in_batch if num_items_in_batch is not None else max(int((labels[:, 1:] != IGNORED).sum()), 1)
        returned: torch.Tensor = outputs.logits.float().sum()
        # FSDP2 rounds what a model returns to half precision
        return (returned + (self._exact.to(returned.device) - returned).detach()) / count
