"""The adapter folder: what is saved at the end of training, and reading it back in another process."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import torch
from peft import PeftModel
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lft.core.errors import AdapterError, PreflightError
from lft.core.files import files_aside
from lft.data.example import Style

NOTES = "lft.json"
Weights = dict[str, torch.Tensor]
"""The adapter's weights by the names they have in the model."""


def gather_adapter(model: PeftModel) -> Weights:
    """The adapter's weights in full, float32 where it trains in float32, whatever part of them each rank holds.

    Every rank must call it at the same point.
    """
    return {name: _whole(parameter).detach().cpu() for name, parameter in _trained(model)}


def _trained(model: PeftModel) -> Iterator[tuple[str, torch.nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _whole(parameter: torch.nn.Parameter) -> torch.Tensor:
    if isinstance(parameter, DTensor):
        return parameter.full_tensor()
    if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):  # ZeRO-3; ZeRO-2
        from deepspeed.utils import safe_get_full_fp32_param

        # the float32 weights that are updated; the parameter itself is a part of them, or a half-precision copy
        whole: torch.Tensor = safe_get_full_fp32_param(parameter)
        return whole
    return parameter


def write_adapter(model: PeftModel, weights: Weights, folder: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors from what `gather_adapter` returned."""
    # what peft would decide by asking the Hub: the embeddings are frozen and stay with the base model
    model.save_pretrained(str(folder), state_dict=weights, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty card; the real one is written with the report


def check_written(model: PeftModel, folder: Path) -> None:
    """Read the written weights again: all of the model's adapter, in its shapes, finite. Raises AdapterError."""
    expected = {name.replace(f".{model.active_adapter}.", "."): _shape(tensor) for name, tensor in _trained(model)}
    found = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    wrong = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    wrong += [f"{name} is not expected" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(expected.keys() & found.keys()):
        if tuple(found[name].shape) != expected[name]:
            wrong.append(f"{name} has shape {tuple(found[name].shape)}, not {expected[name]}")
        elif not found[name].isfinite().all():
            wrong.append(f"{name} is not finite")
    if wrong:
        raise AdapterError(
            f"the adapter that was written is damaged and was not kept: {len(wrong)} of {len(expected)} tensors, "
            f"first {wrong[0]}",
            next_step="the checkpoints before it are still there",
        )


def _shape(parameter: torch.nn.Parameter) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))  # ds_shape: ZeRO-3 leaves an empty parameter


def save_adapter(
    model: PeftModel,
    weights: Weights,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    style: Style,
    base_model: str,
) -> None:
    """Put adapter, tokenizer and lft.json (how prompts were written, which base model) into `folder`, all or nothing.

    One rank writes. Raises AdapterError where what was written cannot be read again as it should be.
    """
    with files_aside(folder) as temporary:
        write_adapter(model, weights, temporary)
        check_written(model, temporary)
        tokenizer.save_pretrained(temporary)
        notes = {"base_model": base_model, "prompt_style": style}
        (temporary / NOTES).write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The adapter of `folder` on `model`. Raises PreflightError where there is none or it does not fit."""
    if not (folder / "adapter_config.json").exists():
        raise PreflightError(
            f"{folder} holds no adapter",
            next_step="call setup_lora() and train() first, or name the output_dir of a run",
        )
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise PreflightError(f"the adapter in {folder} does not fit this model: {error}") from None
    assert isinstance(adapted, PeftModel)
    return adapted


def saved_style(folder: Path) -> Style | None:
    """How prompts were written when the adapter in `folder` was trained; None for one trained elsewhere."""
    try:
        notes: dict[str, Any] = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    style = notes.get("prompt_style")
    return style if style in get_args(Style) else None
