"""Which layers LoRA sits on: the families by name, and the one rule that both the plan and the training use."""

from collections.abc import Collection, Sequence

from lft.core.errors import PreflightError

# The layers of each model family, by the last part of their names; the first family that is wholly there is taken.
FAMILIES: tuple[tuple[str, ...], ...] = (
    ("c_attn", "c_proj"),  # GPT-2, GPT-BigCode
    ("q_proj", "v_proj", "k_proj", "o_proj"),  # Llama, Mistral, Qwen, Gemma, SmolLM
    ("q_proj", "v_proj", "k_proj", "out_proj"),  # OPT, GPT-J, GPT-Neo
    ("q_proj", "v_proj", "k_proj", "dense"),  # Phi-1, Phi-2
    ("query", "value", "key", "dense"),  # BERT, RoBERTa
    ("qkv_proj", "o_proj"),  # Phi-3, Phi-4
    ("qkv_proj", "out_proj"),  # CodeGen
    ("query_key_value", "dense"),  # GPT-NeoX, Pythia, Falcon, BLOOM, ChatGLM
    ("Wqkv", "out_proj"),  # MPT, DBRX
    ("Wqkv", "Wo"),  # ModernBERT
    ("wqkv", "wo"),  # InternLM2
    ("fc1", "fc2"),
)


def family_of(layers: Collection[str]) -> list[str] | str:
    """The ends of the names of the family's layers that are really there, or "all-linear"."""
    ends = {name.rsplit(".", 1)[-1] for name in layers}
    for family in FAMILIES:
        if ends.issuperset(family):
            return list(family)
    return "all-linear"


def is_target(layer: str, target: str) -> bool:
    """Whether a layer's full name is `target` or ends in it, as peft reads target_modules."""
    return layer == target or layer.endswith(f".{target}")


def block_of(layer: str) -> int | None:
    """The number of the block a layer is in, as peft reads layers_to_transform: the first number in its name."""
    return next((int(part) for part in layer.split(".") if part.isdigit()), None)


def missing_targets(layers: Collection[str], targets: Sequence[str]) -> PreflightError | None:
    """The error that names the targets that no layer has, and the layers there are; None where there is nothing to say."""
    missing = [target for target in targets if not any(is_target(layer, target) for layer in layers)]
    if not missing:
        return None
    known = ", ".join(sorted({layer.rsplit(".", 1)[-1] for layer in layers}))
    return PreflightError(
        f"lora.target_modules: the model has no layer {', '.join(missing)}; its linear layers are {known}",
        next_step="use target_modules: auto, all-linear, or some of these",
    )


def missing_modules(modules: Collection[str], wanted: Sequence[str]) -> PreflightError | None:
    """The error that names what is to be trained whole and is not there, and the modules there are; None where all is."""
    missing = [each for each in wanted if not any(is_target(name, each) for name in modules)]
    if not missing:
        return None
    known = ", ".join(sorted({end for name in modules if not (end := name.rsplit(".", 1)[-1]).isdigit()}))
    return PreflightError(
        f"lora.modules_to_save: the model has no module {', '.join(missing)}; its modules are {known}",
        next_step="use some of these, or leave it out",
    )


def tied_modules(tied: Collection[str], wanted: Sequence[str]) -> PreflightError | None:
    """The error for what is to be trained whole and shares its weight: a copy would be trained, and they would part."""
    both = [each for each in wanted if any(is_target(name, each) for name in tied)]
    if not both:
        return None
    return PreflightError(
        f"lora.modules_to_save: {', '.join(both)} is one weight with {' and '.join(sorted(tied))} in this model; training "
        "it would part them, and merging would undo that",
        next_step=f"leave {', '.join(both)} out",
    )


def adapted_layers(layers: Collection[str], targets: Sequence[str] | str) -> list[str]:
    """The full names of the layers that get an adapter; `targets` is "auto", "all-linear" or ends of names."""
    if targets == "auto":
        targets = family_of(layers)
    if isinstance(targets, str):
        return list(layers)
    return [layer for layer in layers if any(is_target(layer, target) for target in targets)]
