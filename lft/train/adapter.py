"""The adapter folder: what is saved at the end of training, and reading it back in another process."""

import json
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lft.core.errors import AdapterError, PreflightError
from lft.core.files import files_aside
from lft.core.lora_start import Quantization
from lft.data.example import Style
from lft.train.lora_start import as_plain, from_plain, plain_config, start_of

NOTES = "lft.json"
Weights = dict[str, torch.Tensor]
"""The adapter's weights by the names they have in the model."""


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """What the adapter's two files are to hold, apart from the model, which may train on while they are written."""

    config: PeftConfig
    tensors: Weights
    """By the names they have in the file."""
    shapes: dict[str, tuple[int, ...]]
    """What their shapes are in the model; those of `tensors`, unless they were not gathered as they should be."""


def trained_parameters(model: PeftModel) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The adapter's parameters, and whatever else is not frozen."""
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def gather_adapter(model: PeftModel) -> Weights:
    """A copy of the adapter's weights in full, float32 where it trains in float32, whatever part of them each rank holds.

    Every rank must call it at the same point.
    """
    return {name: _whole(parameter).detach().to("cpu", copy=True) for name, parameter in trained_parameters(model)}


def _whole(parameter: torch.nn.Parameter) -> torch.Tensor:
    if isinstance(parameter, DTensor):
        return parameter.full_tensor()
    if hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping"):  # ZeRO-3; ZeRO-2
        from deepspeed.utils import safe_get_full_fp32_param

        # the float32 weights that are updated; the parameter itself is a part of them, or a half-precision copy
        whole: torch.Tensor = safe_get_full_fp32_param(parameter)
        return whole
    return parameter


def adapter_files(model: PeftModel, weights: Weights) -> AdapterFiles:
    """What to write of the weights that `gather_adapter` returned: a plain adapter of the base model that everybody has."""
    start = start_of(model)
    shapes = {name: torch.empty(_shape(parameter), device="meta") for name, parameter in trained_parameters(model)}
    config: Any = model.peft_config[model.active_adapter]
    config = plain_config(config) if start else copy(config)
    config.inference_mode = True

    def named(tensors: Weights) -> Weights:
        # what peft would decide by asking the Hub: the embeddings are frozen and stay with the base model
        plain = as_plain(tensors, start)
        found: Weights = get_peft_model_state_dict(model, state_dict=plain, save_embedding_layers=False)
        return found

    return AdapterFiles(config, named(weights), {name: tuple(tensor.shape) for name, tensor in named(shapes).items()})


def _shape(parameter: torch.nn.Parameter) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))  # ds_shape: ZeRO-3 leaves an empty parameter


def write_adapter(files: AdapterFiles, folder: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors, and read the weights again.

    Raises AdapterError where they are not all of the model's adapter, in its shapes, and finite.
    """
    files.config.save_pretrained(str(folder))
    tensors = {name: tensor.contiguous() for name, tensor in files.tensors.items()}
    save_file(tensors, folder / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
    found = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    wrong = [f"{name} is missing" for name in sorted(files.shapes.keys() - found.keys())]
    wrong += [f"{name} is not expected" for name in sorted(found.keys() - files.shapes.keys())]
    for name in sorted(files.shapes.keys() & found.keys()):
        if tuple(found[name].shape) != files.shapes[name]:
            wrong.append(f"{name} has shape {tuple(found[name].shape)}, not {files.shapes[name]}")
        elif not found[name].isfinite().all():
            wrong.append(f"{name} is not finite")
    if wrong:
        raise AdapterError(
            f"the adapter that was written is damaged and was not kept: {len(wrong)} of {len(files.shapes)} tensors, "
            f"first {wrong[0]}",
            next_step="the checkpoints before it are still there",
        )


def read_weights(model: PeftModel, folder: Path) -> None:
    """Give `model`, which is not wrapped yet, the adapter of a checkpoint of the same adapter. Raises PreflightError."""
    found = from_plain(model, load_file(folder / SAFETENSORS_WEIGHTS_NAME))
    result: Any = set_peft_model_state_dict(model, found)
    missing = [name for name, _ in trained_parameters(model) if name in result.missing_keys]
    if missing or result.unexpected_keys:
        names = ", ".join([*missing, *result.unexpected_keys][:3])
        raise PreflightError(
            f"{folder} holds another adapter than this run's: {names}", next_step="begin anew in another output_dir"
        )


def save_adapter(
    model: PeftModel,
    weights: Weights,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    style: Style,
    base_model: str,
) -> None:
    """Put adapter, tokenizer and lft.json (how prompts were written, which base model, how kept) into `folder`, all or nothing.

    One rank writes. Raises AdapterError where what was written cannot be read again as it should be.
    """
    with files_aside(folder) as temporary:
        write_adapter(adapter_files(model, weights), temporary)
        tokenizer.save_pretrained(temporary)
        notes = {"base_model": base_model, "prompt_style": style, "quantization": kept_in(model)}
        (temporary / NOTES).write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def kept_in(model: PeftModel) -> Quantization:
    """How the weights of the base are kept in memory."""
    base = model.get_base_model()
    return (
        "4bit"
        if getattr(base, "is_loaded_in_4bit", False)
        else "8bit"
        if getattr(base, "is_loaded_in_8bit", False)
        else "none"
    )


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
