"""The adapter: which layers it sits on, and putting it there."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lft.core.errors import PreflightError
from lft.core.lora_start import KNOWN, refused_start, takes_from_base
from lft.core.lora_targets import block_of, family_of, is_target, missing_modules, missing_targets, tied_modules
from lft.core.settings import LoraSettings
from lft.train.lora_start import remember_start


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraOptions:
    """The documented arguments of setup_lora."""

    r: int
    lora_alpha: int
    lora_dropout: float
    target_modules: Sequence[str] | str
    variant: LoraSettings = field(default_factory=LoraSettings)
    """All the other settings of an adapter; those above do not count in it."""


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

    Raises PreflightError for a target that the model does not have, and for a variant that cannot be had on it.
    """
    targets = options.target_modules if isinstance(options.target_modules, str) else list(options.target_modules)
    layers, variant = linear_layers(model), options.variant
    error = None if isinstance(targets, str) else missing_targets(layers, targets)
    if error:
        raise error
    transposed = any(isinstance(model.get_submodule(layer), Conv1D) for layer in layers)
    _check_start(model, layers, options, transposed=transposed)
    whole = _named_modules(model, variant.modules_to_save)
    _check_blocks(layers, targets, variant.layers_to_transform)
    config = LoraConfig(
        r=options.r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=targets,
        fan_in_fan_out=transposed,
        use_rslora=variant.use_rslora,
        use_dora=variant.use_dora,
        init_lora_weights=variant.init_lora_weights,  # type: ignore[arg-type]
        modules_to_save=whole or None,
        layers_to_transform=list(variant.layers_to_transform) if variant.layers_to_transform else None,
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config, autocast_adapter_dtype=True)
    assert isinstance(adapted, PeftModel)
    remember_start(adapted)
    _train_whole(adapted)
    return adapted


def _check_start(model: PreTrainedModel, layers: set[str], options: LoraOptions, *, transposed: bool) -> None:
    """Refuse first values that peft cannot compute here, or computes wrongly without a word (0.21)."""
    start, why = options.variant.init_lora_weights, refused_start(options.variant.init_lora_weights)
    if start == "orthogonal" and options.r % 2:
        why = f"lora.init_lora_weights orthogonal needs an even lora.r, and it is {options.r}"
    if start == "olora" and transposed:
        why = f"lora.init_lora_weights olora reads weights by rows, and {type(model).__name__}'s lie in columns"
    if start not in (True, "gaussian") and getattr(model, "hf_quantizer", None) is not None:
        why = f"lora.init_lora_weights {start} needs the weights themselves, and they are quantized"
    elif takes_from_base(start):
        weights: list[Any] = [model.get_submodule(layer).weight for layer in layers]
        narrowest = min(min(weight.shape) for weight in weights)
        if options.r > narrowest:
            why = f"lora.init_lora_weights {start} finds at most {narrowest} ranks in this model, and lora.r is {options.r}"
    if why:
        raise PreflightError(why, next_step=f"--set lora.init_lora_weights=true; known are {KNOWN}")


def _named_modules(model: PreTrainedModel, wanted: Sequence[str]) -> list[str]:
    """The full names of modules: for peft, `norm` would be any layernorm too.

    Refuses modules that are not there, and one of two that share a weight: a copy would be trained, and they would part.
    """
    names = [name for name, module in model.named_modules() if name and next(module.parameters(), None) is not None]
    if error := missing_modules(names, wanted):
        raise error
    found = [name for name in names if any(is_target(name, each) for each in wanted)]
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    if outer is None or inner.weight is not outer.weight:
        return found
    tied = {name for name, module in model.named_modules() if module is inner or module is outer}
    if error := tied_modules(tied, wanted):
        raise error
    return found


def _check_blocks(layers: set[str], targets: list[str] | str, wanted: Sequence[int] | None) -> None:
    if not wanted:
        return
    if isinstance(targets, str):
        raise PreflightError(
            f"lora.layers_to_transform needs lora.target_modules by name, and it is {targets}",
            next_step="for example --set lora.target_modules=[q_proj,v_proj]",
        )
    blocks = {block_of(layer) for layer in layers}
    beyond = sorted(set(wanted) - blocks)
    if beyond:
        raise PreflightError(
            f"lora.layers_to_transform: the model has no block {', '.join(map(str, beyond))}; it has {len(blocks)}, from 0",
            next_step="use numbers of these",
        )


def _train_whole(model: PeftModel) -> None:
    """Let modules that are trained whole do so in float32, as adapters do, in a model that computes in half precision.

    peft leaves the copies in the base's type, in which small updates are lost.
    """
    for module in model.modules():
        if not isinstance(module, ModulesToSaveWrapper):
            continue
        own = module.modules_to_save[module.active_adapters[0]].float()
        base = next(module.original_module.parameters()).dtype
        if base != torch.float32:
            own.register_forward_pre_hook(_cast_inputs)
            own.register_forward_hook(lambda _module, _inputs, output, base=base: output.to(base))


def _cast_inputs(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """To the type its weights have now: DeepSpeed and FSDP2 cast them."""
    dtype = next(module.parameters()).dtype
    return tuple(
        each.to(dtype) if isinstance(each, torch.Tensor) and each.is_floating_point() else each for each in inputs
    )
