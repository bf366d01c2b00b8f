"""The loss of each row of a batch, without the logits of the whole batch: 16 GB for 32 rows of 1,024 tokens of Llama 3."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, linear

from lft.core.logits import CHUNK_LOGITS
from lft.data.shard_format import IGNORED
from lft.train.batches import PadToLongest
from lft.train.loss import TrainedTokens, token_losses


@torch.inference_mode()
def row_losses(model: Any, pad_token_id: int, tokens: Sequence[Mapping[str, Any]]) -> list[tuple[float, int]]:
    """Summed loss and number of trained tokens of each row of one batch; rows as in PadToLongest."""
    batch = PadToLongest(pad_token_id)(tokens)
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    labels = batch.pop("labels")
    if TrainedTokens.problem(model):
        losses, rows = token_losses(model(**batch, use_cache=False).logits, labels)
    else:
        found: list[torch.Tensor] = []
        with _losses_for_logits(model, labels, found):
            model(**batch, use_cache=False)
        losses, rows = found[0], (labels[:, 1:] != IGNORED).nonzero()[:, 0]
    rows = rows.to(losses.device)
    sums = torch.zeros(len(tokens), dtype=torch.float64, device=losses.device).index_add_(0, rows, losses.double())
    counts = torch.bincount(rows, minlength=len(tokens))
    return list(zip(sums.tolist(), counts.tolist(), strict=True))


@contextmanager
def _losses_for_logits(model: Any, labels: torch.Tensor, found: list[torch.Tensor]) -> Iterator[None]:
    """Within it, the output projection computes the loss of each trained token, into `found`, and returns no logits."""
    head: nn.Linear = model.get_output_embeddings()

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        targets = labels[:, 1:].to(hidden.device)
        trained = targets != IGNORED
        kept = hidden[:, :-1][trained].to(head.weight)  # its device too: tied to the embeddings, it is on the first
        found.append(_token_losses(kept, targets[trained].to(kept.device), head))
        return hidden.new_zeros(1, 1, 1)

    own_forward = head.forward
    head.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        head.forward = own_forward  # type: ignore[method-assign]


def _token_losses(kept: torch.Tensor, targets: torch.Tensor, head: nn.Linear) -> torch.Tensor:
    """Cross entropy (tokens,) in float32, of hidden states (tokens, width) and targets (tokens,)."""
    step = max(CHUNK_LOGITS // head.weight.shape[0], 1)
    losses = [
        cross_entropy(linear(part, head.weight, head.bias).float(), wanted, reduction="none")
        for part, wanted in zip(kept.split(step), targets.split(step), strict=True)
    ]
    return torch.cat(losses)
