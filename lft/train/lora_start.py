"""PiSSA and OLoRA: their adapters begin with a part of the base's weights, which is taken out of these; and the way back.

Meng et al. 2024 (arXiv:2404.02948), Büyükakyüz 2024 (arXiv:2406.01775). With W the base's weight, A0 and B0 the first values
and s the scale, the model trains W - s B0 A0 + s B A. Files hold the same as a plain adapter of W, of twice the rank:
s [B, -B0] [A; A0], as peft's own conversion has it. So the base stays the one everybody has, and a checkpoint brings along
what the base has to lack, however A0 and B0 were found.
"""

from collections.abc import Callable
from copy import copy
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.utils.other import transpose
from transformers import PreTrainedModel

from lft.core.lora_start import takes_from_base

Tensors = dict[str, torch.Tensor]
_HALVES = (("lora_A", 0, 1), ("lora_B", 1, -1))
"""Matrix, the dimension of its rank, and the sign of its first values in a file."""


def remember_start(model: PeftModel) -> None:
    """Keep the first values of a fresh adapter, if they were taken out of the base."""
    config = model.peft_config[model.active_adapter]
    if isinstance(config, LoraConfig) and takes_from_base(config.init_lora_weights):
        named = (item for item in model.named_parameters() if "lora_A" in item[0] or "lora_B" in item[0])
        vars(model)["_start"] = {name: parameter.detach().float().cpu().clone() for name, parameter in named}


def start_of(model: PeftModel) -> Tensors:
    """The first values, by the names they have in the model; empty where the base is as it was."""
    start: Tensors = vars(model).get("_start", {})
    return start


def unchanged_base(model: PeftModel | None, load: Callable[[], PreTrainedModel]) -> PreTrainedModel | None:
    """The base model, loaded once more where the one under the adapter is no longer it; None where it is."""
    if model is None:
        return None
    trained: Any = model.peft_config[model.active_adapter]
    return load() if start_of(model) or trained.modules_to_save else None


def plain_config(config: LoraConfig) -> LoraConfig:
    """That of the plain adapter, with the same scale."""
    plain = copy(config)
    plain.r *= 2
    plain.lora_alpha = config.lora_alpha * (2**0.5 if config.use_rslora else 2)  # type: ignore[assignment]
    plain.init_lora_weights = True
    return plain


def as_plain(weights: Tensors, start: Tensors) -> Tensors:
    """The weights of the plain adapter; both by their names in the model."""
    plain = dict(weights)
    for name in start.keys() & weights.keys():
        dim, sign = next((dim, sign) for matrix, dim, sign in _HALVES if matrix in name)
        plain[name] = torch.cat([weights[name], sign * start[name].to(weights[name].device)], dim)
    return plain


def from_plain(model: PeftModel, plain: Tensors) -> Tensors:
    """The model's own weights out of a file, by the names they have in it; the base lacks what theirs lacked.

    The same machine finds the same first values again, bit by bit, and the base is left alone; another may not.
    """
    own, start = dict(plain), start_of(model)
    for name in start:
        matrix, dim, sign = next(half for half in _HALVES if half[0] in name)
        in_file = name.replace(f"{matrix}.{model.active_adapter}.", f"{matrix}.")
        if in_file in plain:
            own[in_file], first = (part.contiguous() for part in plain[in_file].chunk(2, dim))
            _begin_with(model, start, name, sign * first)
    return own


def _begin_with(model: PeftModel, start: Tensors, name: str, first: torch.Tensor) -> None:
    """Take `first` instead of what `start` has there out of the base."""
    if torch.equal(first, start[name]):
        return
    path, adapter = name.partition(".lora_")[0], model.active_adapter
    layer: Any = model.get_submodule(path)
    a, b = (f"{path}.{matrix}.{adapter}.weight" for matrix in ("lora_A", "lora_B"))
    before = start[b] @ start[a]
    start[name] = first.float()
    change = layer.scaling[adapter] * (before - start[b] @ start[a])
    weight = layer.get_base_layer().weight
    weight.data = (weight.float() + transpose(change, layer.fan_in_fan_out).to(weight.device)).to(weight.dtype)
