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
TOLERANCE = {torch.float32: 1e-4, torch.float16: 0.02, torch.bfloat16: 0.05}
"""Of logits, relative, by the type of the weights: about ten times what rounding was seen to make."""


@torch.no_grad()
def assert_isolated(wrapped: nn.Module, base: PreTrainedModel, device: torch.device) -> None:
    """Run a few tokens alone and as the second row of a pack, in one forward pass of `wrapped`, which trains `base`.

    All ranks must call it at the same time. Raises PreflightError where the logits differ, on every rank.
    """
    vocabulary = int(base.config.get_text_config().vocab_size)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(vocabulary, (2, TOKENS), generator=generator).tolist()
    before, row = ({"input_ids": ids, "labels": ids} for ids in drawn)
    batch = PackRows(0)([[before, row], [row]])
    del batch["labels"]
    batch = {name: value.to(device) if torch.is_tensor(value) else value for name, value in batch.items()}
    was_training = wrapped.training
    wrapped.eval()  # without dropout
    try:
        logits = wrapped(**batch).logits.float()
    finally:
        wrapped.train(was_training)
    packed, alone = logits[0, TOKENS:], logits[1, :TOKENS]
    if not (packed - alone).norm() <= TOLERANCE.get(base.dtype, 0.05) * alone.norm():
        raise PreflightError(
            f"rows of a pack would see each other in this model ({type(base).__name__})",
            next_step="--set data.packing=false",
        )
