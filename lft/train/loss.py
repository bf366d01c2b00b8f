"""The loss: cross entropy of the trained tokens, summed, divided by their number in the whole global batch.

A mean of means over micro-batches or ranks would weigh tokens of short rows more (transformers#34191).
"""

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from lft.data.shard_format import IGNORED


def predicting_positions(labels: torch.Tensor) -> torch.Tensor:
    """Positions at which some row of the batch predicts a trained token: the only ones whose logits are needed.

    labels (batch, tokens); the result (positions,) is ascending.
    """
    return (labels[:, 1:] != IGNORED).any(dim=0).nonzero()[:, 0]


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
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
    losses = cross_entropy(logits[trained].float(), targets[trained], reduction="none")
    return losses, trained.nonzero()[:, 0]


def global_batch_loss(
    outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
) -> torch.Tensor:
    """This micro-batch's part of the global batch's mean loss; all parts add up to it.

    `num_items_in_batch` is the number of trained tokens of the global batch, over accumulation and ranks, as
    transformers.Trainer counts it.
    """
    losses, _ = token_losses(outputs.logits, labels)
    count = num_items_in_batch if num_items_in_batch is not None else max(losses.numel(), 1)
    return losses.sum() / count
