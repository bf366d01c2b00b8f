"""The frozen base under DDP: every rank has loaded the same one, so it is compared, and not sent.

By itself DDP sends all weights from rank 0 when it is made, frozen ones too. For SmolLM2 in bf16 that takes 0.6 s; across
machines it takes as long as their network needs for the model; and ranks of one node that map one file get a copy each.
"""

from collections.abc import Iterable
from hashlib import sha256

import torch
from peft import PeftModel
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from lft.core.errors import PreflightError
from lft.train.lora_start import start_of

SAMPLED = 64
"""Numbers at each end of a weight: two pages of a file that is mapped, and another model's differ in all of them."""


def keep_base(model: PeftModel) -> None:
    """Before DDP wraps `model`: leave its frozen weights where they are. Every rank of the process group must call it.

    Raises PreflightError on a rank whose base is not that of rank 0. Where PiSSA or OLoRA have taken the adapter out of
    the base, all is sent as ever: their factors may differ from machine to machine.
    """
    if start_of(model):
        return
    frozen = {name: weight for name, weight in model.named_parameters() if not weight.requires_grad}
    own = fingerprint(frozen.values())
    of_main = [own]
    distributed.broadcast_object_list(of_main)
    if of_main != [own]:
        raise PreflightError(
            "the base model of this rank is not that of rank 0: other weights, or another number type",
            next_step="name the same files on every node: a folder that all of them see, or a Hub id with model.revision",
        )
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, list(frozen))


def fingerprint(weights: Iterable[torch.Tensor]) -> str:
    """Of shapes, types and both ends of all weights, bit by bit."""
    digest = sha256()
    for weight in weights:
        flat = weight.detach().flatten()
        ends = torch.cat([flat[:SAMPLED], flat[-SAMPLED:]]).cpu().view(torch.uint8)
        digest.update(f"{tuple(weight.shape)} {weight.dtype} {ends.tolist()}".encode())
    return digest.hexdigest()
