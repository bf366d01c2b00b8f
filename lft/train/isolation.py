"""Whether the rows of a pack see each other in a model: measured before the first step, since nothing would show it later.

A model that ignores position_ids when it masks, or that carries a state along the sequence, trains on packs without
complaint, to a worse adapter.
"""

import torch
from torch import nn
from transformers import PreTrainedModel

from lft.core.errors import PreflightError
from lft.train.batches import PackRows

TOKENS = 12
"""Of each of the rows that are looked at."""
TOLERANCE = 1e-3
"""Of logits, relative. What stands before the row is changed and nothing else, so that not even the order of sums differs;
a row that is seen changed them by 0.13 (SmolLM2-135M)."""


@torch.no_grad()
def assert_isolated(wrapped: nn.Module, base: PreTrainedModel, device: torch.device) -> None:
    """Run a few tokens as the second row of two packs that begin otherwise, in one forward pass of `wrapped`, around `base`.

    All ranks must call it at the same time. Raises PreflightError where the logits differ, on every rank.
    """
    vocabulary = int(base.config.get_text_config().vocab_size)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(vocabulary, (3, TOKENS), generator=generator).tolist()
    one, other, row = ({"input_ids": ids, "labels": ids} for ids in drawn)
    batch = PackRows(0)([[one, row], [other, row]])
    del batch["labels"]
    batch = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
    was_training = wrapped.training
    wrapped.eval()  # without dropout
    try:
        logits = wrapped(**batch).logits[:, TOKENS:].float()
    finally:
        wrapped.train(was_training)
    if not (logits[0] - logits[1]).norm() <= TOLERANCE * logits[0].norm():
        raise PreflightError(
            f"rows of a pack would see each other in this model ({type(base).__name__})",
            next_step="--set data.packing=false",
        )
