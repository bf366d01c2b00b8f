"""How an adapter begins: the initialisations of peft that need nothing but the model, and why the others are refused."""

from typing import Annotated, Literal

from pydantic import Field

Quantization = Literal["none", "4bit", "8bit"]
"""model.quantization."""
Start = (
    bool
    | Literal["gaussian", "orthogonal", "olora", "pissa", "eva", "corda", "loftq", "lora_ga", "mica"]
    | Annotated[str, Field(pattern=r"^pissa_niter_[1-9]\d*$", examples=["pissa_niter_4"])]
)
"""lora.init_lora_weights: every name that peft knows."""

_NEEDS_DATA = "computes the first values from the model's activations or gradients on data, before training"
_REFUSED: dict[str, str] = {
    "eva": _NEEDS_DATA,
    "corda": _NEEDS_DATA,
    "lora_ga": _NEEDS_DATA,
    "loftq": "quantizes the base model by itself, so that the adapter would fit no model that others can load",
    "mica": "freezes half of the adapter, which would then be in no checkpoint",
    "False": "begins with noise instead of the base model, for trials of peft itself",
}
KNOWN = "true, gaussian, orthogonal, olora, pissa or pissa_niter_4"


def refused_start(start: Start) -> str | None:
    """Why lft does not begin an adapter so; None where it does."""
    why = _REFUSED.get(str(start))
    return f"lora.init_lora_weights {str(start).lower()} {why}" if why else None


def takes_from_base(start: Start) -> bool:
    """Whether what the adapter begins with is taken out of the base's weights: PiSSA and OLoRA."""
    return isinstance(start, str) and start.startswith(("pissa", "olora"))
