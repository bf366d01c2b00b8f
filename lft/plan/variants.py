"""Variants of LoRA and quantized bases: what does not go together with them, and how the plan names them. Pure."""

from collections.abc import Iterator

from lft.core.lora_start import KNOWN, refused_start, takes_from_base
from lft.core.settings import LoraSettings, ModelSettings, RunSettings, Strategy


def without_strategies(settings: RunSettings) -> dict[Strategy, str]:
    """The strategies that cannot train the adapter asked for, each with the reason."""
    lora, found = settings.lora, dict[Strategy, str]()
    if settings.model.quantization != "none":
        packed = f"cuts the base's weights, and those of model.quantization {settings.model.quantization} are packed"
        found |= {"zero3": packed, "fsdp": packed}
        found["zero2"] = "casts the base's weights to its own type, which quantized ones have not been tried with"
    if lora.modules_to_save:
        found["zero3"] = "cuts the modules that lora.modules_to_save copies, which has not been tried"
    if lora.use_dora:
        found["zero3"] = "gathers a weight where its own layer is called, and DoRA reads it elsewhere"
    if takes_from_base(lora.init_lora_weights):
        found["zero3"] = f"leaves each rank a part of the weights {lora.init_lora_weights} takes the adapter out of"
    return found


def variant_conflicts(settings: RunSettings) -> Iterator[tuple[str, str]]:
    """Settings of an adapter that cannot be meant together, each with a way out."""
    lora, start = settings.lora, settings.lora.init_lora_weights
    usual = "--set lora.init_lora_weights=true"
    if refused := refused_start(start):
        yield refused, f"{usual}; known are {KNOWN}"
    elif start not in (True, "gaussian") and settings.model.quantization != "none":
        problem = f"lora.init_lora_weights {start} needs the weights themselves"
        yield f"{problem}, and model.quantization is {settings.model.quantization}", usual
    if start == "orthogonal" and lora.r % 2:
        yield (
            f"lora.init_lora_weights orthogonal needs an even lora.r, and it is {lora.r}",
            f"--set lora.r={lora.r + 1}",
        )
    if lora.layers_to_transform and lora.target_modules == "all-linear":
        problem = "lora.layers_to_transform needs lora.target_modules by name, and it is all-linear"
        yield problem, "--set lora.target_modules=[q_proj,v_proj]"
    asked = settings.launch.strategy
    if asked != "auto" and (why := without_strategies(settings).get(asked)):
        yield f"launch.strategy {asked} {why}", "leave out --strategy, or use --strategy ddp"


def lacks_quantization(model: ModelSettings, *, has_bitsandbytes: bool) -> Iterator[tuple[str, str]]:
    """The package a quantized base needs, where it is not there."""
    if model.quantization != "none" and not has_bitsandbytes:
        problem = f"model.quantization {model.quantization} needs the package bitsandbytes"
        yield problem, "pip install 'lft[bitsandbytes]', or --set model.quantization=none"


def name_of(lora: LoraSettings) -> str:
    """What kind of adapter it is: `LoRA`, `DoRA, rsLoRA, begun with pissa`."""
    kinds = [name for name, on in (("DoRA", lora.use_dora), ("rsLoRA", lora.use_rslora)) if on]
    named = ", ".join(kinds) or "LoRA"
    return named if lora.init_lora_weights is True else f"{named}, begun with {lora.init_lora_weights},"


def more_of(lora: LoraSettings) -> str:
    """What else the adapter is: blocks, modules trained whole, LoRA+."""
    parts = []
    if lora.layers_to_transform:
        parts.append(f"blocks {', '.join(map(str, lora.layers_to_transform))} only")
    if lora.modules_to_save:
        parts.append(f"{', '.join(lora.modules_to_save)} trained whole")
    if lora.loraplus_lr_ratio:
        parts.append(f"B learns {lora.loraplus_lr_ratio:g} times as fast (LoRA+)")
    return "; ".join(parts)
