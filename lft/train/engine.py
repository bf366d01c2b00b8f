"""What a training step is computed with: attention, loss and adapter arithmetic, chosen for a model, with the reasons."""

from dataclasses import dataclass
from typing import cast

from peft import PeftModel
from transformers import PreTrainedModel

from lft.core.precision import Device
from lft.core.rank import Rank
from lft.core.settings import Precision, Strategy
from lft.train.attention import choose_attention, rows_stay_apart
from lft.train.lora_forward import quicken
from lft.train.loss import TrainedTokens
from lft.train.strategy import is_spread


@dataclass(frozen=True, slots=True)
class Engine:
    """How steps are computed; `reasons` are lines for the user."""

    packs: bool
    """Whether rows may share a pack: they cannot see each other in this model."""
    trained_tokens: TrainedTokens | None
    """Computes the loss; None where the model's own logits are used."""
    reasons: tuple[str, ...]


def uses_autocast(strategy: Strategy, precision: Precision) -> bool:
    """Whether the forward pass runs under autocast; float32 adapters in a bf16 model need none, being cast themselves.

    DeepSpeed and FSDP2 cast the weights they gather; fp16 stays with autocast and GradScaler.
    """
    return precision == "fp16" or (precision == "bf16" and strategy in ("zero2", "zero3", "fsdp"))


def make_engine(model: PeftModel, rank: Rank, strategy: Strategy, device: Device, precision: Precision) -> Engine:
    """Set `model` up for training steps; evaluation and generation with it stay what they are.

    Before the model is wrapped. Every rank decides alike.
    """
    base = cast(PreTrainedModel, model.get_base_model())
    own = str(base.config._attn_implementation)
    name, attention = choose_attention(base, device)
    packs = True
    if name != own:
        base.set_attn_implementation(name)
    if strategy != "zero3":  # no rank has whole weights to try it with
        packs = rows_stay_apart(base)
        if not packs and name != own:
            base.set_attn_implementation(own)
            packs = rows_stay_apart(base)
            attention = f"{own} with a mask: {attention} was tried and rows saw each other"
    else:
        packs = base._supports_attention_backend
    if not packs:
        attention = f"padded batches: rows of a pack would see each other in {type(base).__name__}"
    problem = "its layers are on several GPUs" if is_spread(model) else TrainedTokens.problem(model)
    trained_tokens = TrainedTokens(model) if problem is None else None
    if strategy != "zero3" and not uses_autocast(strategy, precision):
        quicken(model, rank)
    loss = "in chunks over the trained tokens" if problem is None else f"over the model's own logits: {problem}"
    return Engine(packs, trained_tokens, (f"attention  {attention}", f"loss       {loss}"))
