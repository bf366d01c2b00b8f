"""What a training step is computed with: attention, loss and adapter arithmetic, chosen for a model, with the reasons."""

from dataclasses import dataclass
from typing import cast

from peft import PeftModel
from transformers import PreTrainedModel

from lft.core.errors import PreflightError
from lft.core.precision import Device, uses_autocast
from lft.core.rank import Rank
from lft.core.settings import Precision, Strategy, TrainingSettings
from lft.train.attention import choose_attention, rows_stay_apart
from lft.train.lora_forward import quicken
from lft.train.loss import TrainedTokens
from lft.train.strategy import SHARDED, is_spread


@dataclass(frozen=True, slots=True)
class Engine:
    """How steps are computed; `reasons` are lines for the user."""

    packs: bool
    """Whether rows may share a pack: they cannot see each other in this model."""
    trained_tokens: TrainedTokens | None
    """Computes the loss; None where the model's own logits are used."""
    reasons: tuple[str, ...]


def make_engine(
    model: PeftModel,
    rank: Rank,
    strategy: Strategy,
    device: Device,
    precision: Precision,
    settings: TrainingSettings = TrainingSettings(),  # noqa: B008  frozen
) -> Engine:
    """Set `model` up for training steps; evaluation and generation with it stay what they are.

    Before the model is wrapped. Every rank decides alike. Raises PreflightError where the model's layers cannot be
    checkpointed.
    """
    base = cast(PreTrainedModel, model.get_base_model())
    _set_checkpointing(base, settings.gradient_checkpointing is True)
    packs, attention = _settle_attention(base, strategy, device)
    problem = "its layers are on several GPUs" if is_spread(model) else TrainedTokens.problem(model)
    trained_tokens = TrainedTokens(model, settings.label_smoothing) if problem is None else None
    if strategy != "zero3" and not uses_autocast(precision, sharded=strategy in SHARDED):
        quicken(model, rank)
    arithmetic = _slow_layers(model)
    loss = "in chunks over the trained tokens" if problem is None else f"over the model's own logits: {problem}"
    return Engine(packs, trained_tokens, (f"attention  {attention}", f"loss       {loss}", *arithmetic))


def _slow_layers(model: PeftModel) -> tuple[str, ...]:
    """A line where adapters are computed by peft because lft's own arithmetic is none for them."""
    config = model.peft_config[model.active_adapter]
    dora = "DoRA computes the norms of whole weights" if getattr(config, "use_dora", False) else ""
    quantized = "the base is quantized" if getattr(model.get_base_model(), "hf_quantizer", None) else ""
    why = ", and ".join(filter(None, (dora, quantized)))
    return (f"adapters   by peft's own arithmetic: {why}",) if why else ()


def _set_checkpointing(base: PreTrainedModel, wanted: bool) -> None:
    """Let each layer compute its activations once more in the backward pass, or keep them.

    Not reentrant: only that kind finds the adapters' gradients behind frozen layers, and lets DDP look for unused parameters.
    """
    is_on = any(getattr(module, "gradient_checkpointing", False) for module in base.modules())
    if wanted == is_on:
        return
    name = "activation_checkpointing" if hasattr(base, "activation_checkpointing_enable") else "gradient_checkpointing"
    if not wanted:
        getattr(base, f"{name}_disable")()
        return
    if not base.supports_gradient_checkpointing:
        raise PreflightError(
            f"{type(base).__name__} does not support gradient checkpointing",
            next_step="--set training.gradient_checkpointing=false, with a smaller training.batch_size",
        )
    getattr(base, f"{name}_enable")({"use_reentrant": False})
    # keys and values for later tokens would be kept, and then be thrown away with a warning
    base.config.use_cache = False


def _settle_attention(base: PreTrainedModel, strategy: Strategy, device: Device) -> tuple[bool, str]:
    """The fastest attention that keeps rows of a pack apart, tried; False where there is none, and why."""
    own = str(base.config._attn_implementation)
    name, reason = choose_attention(base, device)
    reasons = {name: reason}
    reasons.setdefault(own, f"{own} with a mask: rows saw each other, or it failed, {reason}")
    for name, reason in reasons.items():
        if base.config._attn_implementation != name:
            base.set_attn_implementation(name)
        if strategy == "zero3":  # no rank has whole weights to try it with
            return bool(base._supports_attention_backend), reason
        if rows_stay_apart(base):
            return True, reason
    return False, f"padded batches: rows of a pack would see each other in {type(base).__name__}"
