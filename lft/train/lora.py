"""The adapter: which layers it sits on, and putting it there."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lft.core.lora_targets import family_of, missing_targets


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOptions:
    """The documented arguments of setup_lora."""

    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Sequence[str] | str


def linear_layers(model: PreTrainedModel) -> set[str]:
    """Full names of the layers LoRA can sit on; the output projection, tied or not, is not one of them."""
    head = model.get_output_embeddings()
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }


def target_modules(model: PreTrainedModel) -> list[str] | str:
    """The layers of the model's family that it really has, or "all-linear"."""
    return family_of(linear_layers(model))


def apply_lora(model: PreTrainedModel, options: LoraOptions) -> PeftModel:
    """Put a fresh adapter on `model`, its weights in float32 whatever the base's type, so that they can be updated.

    Raises PreflightError for a target that the model does not have.
    """
    targets = options.target_modules if isinstance(options.target_modules, str) else list(options.target_modules)
    layers = linear_layers(model)
    error = None if isinstance(targets, str) else missing_targets(layers, targets)
    if error:
        raise error
    config = LoraConfig(
        r=options.r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=targets,
        fan_in_fan_out=any(isinstance(model.get_submodule(layer), Conv1D) for layer in layers),
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    assert isinstance(adapted, PeftModel)
    return adapted
