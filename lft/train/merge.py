"""Merging an adapter into its base model, one shard of weights at a time.

peft's own layers do the arithmetic, so that every variant it can merge is merged as it would: the model is built with weights
that take no memory, and each adapted layer is given its own in float32, merges, and gives it back, rounded once to the type it
came in.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftConfig, PeftModel, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import SAFETENSORS_WEIGHTS_NAME, ModulesToSaveWrapper
from safetensors.torch import load_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from lft.core.adapter_folder import TunedFolder
from lft.core.errors import AdapterError, PreflightError
from lft.train.base_files import Read, Shard

CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin (lora.init_lora_weights) that take something out of the base, which such an adapter's file does not say."""
UNMERGEABLE = {
    "alora_invocation_tokens": "it works on a part of the tokens only",
    "layer_replication": "it repeats layers of the base",
    "target_parameters": "it adapts parameters that are no layers",
    "trainable_token_indices": "it trains single rows of the embeddings",
    "megatron_config": "it is for Megatron's layers",
    "arrow_config": "it routes between several adapters",
}
"""Settings of an adapter that leave no single weight to merge into, or that have not been tried here."""


@dataclass(frozen=True, slots=True)
class Change:
    """New values of one tensor of the base: from its old ones, or instead of them."""

    make: Callable[[torch.Tensor], torch.Tensor]
    takes: str
    """The tensor whose old values it is made from."""


def open_adapter(tuned: TunedFolder, base: Path, *, trust_remote_code: bool) -> PeftModel:
    """The adapter on a base whose weights take no memory. Raises PreflightError where it cannot be merged."""
    config = PeftConfig.from_pretrained(str(tuned.folder))
    problem = _problem(config)
    if problem:
        raise PreflightError(
            f"the adapter in {tuned.folder} cannot be merged: {problem}",
            next_step="use it as it is, with its base model",
        )
    config.inference_mode = True
    try:
        base_config = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code)
        _refuse_quantized(base_config, tuned)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(
                base_config, dtype=torch.float32, trust_remote_code=trust_remote_code
            )
        _hollow_out(empty)
        adapted = PeftModel(empty, config, low_cpu_mem_usage=True)
        weights = load_file(tuned.folder / SAFETENSORS_WEIGHTS_NAME)
        result: Any = set_peft_model_state_dict(adapted, weights, low_cpu_mem_usage=True)
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PreflightError(
            f"the adapter in {tuned.folder} does not fit {tuned.base}: {reason}",
            next_step="name the base model it was trained on: --model NAME",
        ) from None
    strange = [*result.unexpected_keys, *(name for name in result.missing_keys if config.peft_type.lower() in name)]
    if strange:
        raise PreflightError(
            f"the adapter in {tuned.folder} does not fit {tuned.base}: {strange[0]}",
            next_step="name the base model it was trained on: --model NAME",
        )
    return adapted


def _hollow_out(model: nn.Module) -> None:
    """Weights on the CPU that are one zero seen everywhere: peft moves an adapter to where its base's weights are."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            zeros = torch.zeros((), dtype=parameter.dtype).expand(parameter.shape)
            setattr(module, name, nn.Parameter(zeros, requires_grad=False))


def _problem(config: PeftConfig) -> str | None:
    if not isinstance(config, LoraConfig):
        return f"it is of kind {getattr(config.peft_type, 'value', config.peft_type)}, not LORA"
    start = str(config.init_lora_weights).lower()
    if start.startswith(CHANGES_BASE):
        return (
            f"init_lora_weights is {start}: its base lacks a part that only the training knew; adapters of lft are saved "
            "as plain ones, and peft converts with save_pretrained(path_initial_model_for_weight_conversion=...)"
        )
    if config.bias != "none":
        return f"bias is {config.bias}: it holds biases of the base"
    return next((f"{name}: {why}" for name, why in UNMERGEABLE.items() if getattr(config, name, None)), None)


def _refuse_quantized(config: PreTrainedConfig, tuned: TunedFolder) -> None:
    quantized = getattr(config, "quantization_config", None)
    if quantized is None:
        return
    kind = quantized.get("quant_method") if isinstance(quantized, dict) else type(quantized).__name__
    raise PreflightError(
        f"the weights of {tuned.base} are quantized ({kind}); an adapter is merged into the model they were made from",
        next_step="name that one: --model NAME",
    )


def changes_of(adapted: PeftModel, stored: set[str]) -> dict[str, Change]:
    """What becomes of which tensors of the base: by their names in its files, of which there are `stored`.

    Where one side of tied embeddings is changed, both are there afterwards. Raises PreflightError for a layer whose weight is
    in none of the files.
    """
    model: Any = adapted.get_base_model()
    found: dict[str, Change] = {}
    ties = _ties(model)
    missing = []
    for name, make in _changed(adapted):
        source = _stored_name(ties.get(name, name), model, stored)
        if source is None:
            missing.append(name)
            continue
        own = _stored_name(name, model, stored) or name
        found[own] = Change(make, source)
    if missing:
        raise PreflightError(
            f"{len(missing)} adapted weights are not in the base's files, first {missing[0]}: they are stored in another form",
            next_step="use the adapter as it is, with its base model",
        )
    for output, source in ties.items():
        kept = _stored_name(source, model, stored)
        if kept and kept in found and output not in found:
            found[output] = Change(lambda weight: weight, kept)  # the other side stays what it was
    return found


def is_untied(adapted: PeftModel, changes: dict[str, Change]) -> bool:
    """Whether tied embeddings have become two weights."""
    return any(output in changes for output in _ties(cast(PreTrainedModel, adapted.get_base_model())))


def _ties(model: PreTrainedModel) -> dict[str, str]:
    """The output projection's weight -> that of the embeddings, where they are one."""
    if not model.config.get_text_config().tie_word_embeddings:
        return {}
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    # an adapted module keeps its place
    names = {module: name for name, module in model.named_modules()}
    if inner not in names or outer not in names:
        return {}
    return {f"{_plain(names[outer])}.weight": f"{_plain(names[inner])}.weight"}


def _plain(name: str) -> str:
    """A module's name without what peft puts around it."""
    for part in (".base_layer", ".original_module"):
        name = name.removesuffix(part)
    head, _, _ = name.partition(".modules_to_save.")
    return head


def _changed(adapted: PeftModel) -> Iterator[tuple[str, Callable[[torch.Tensor], torch.Tensor]]]:
    """Names of the parameters that the adapter changes, each with what makes its new values of its old ones."""
    adapter = adapted.active_adapter
    for name, module in adapted.get_base_model().named_modules():
        if isinstance(module, LoraLayer) and adapter in (*module.lora_A, *module.lora_embedding_A):
            yield f"{name}.weight", _merging(module)
        elif isinstance(module, ModulesToSaveWrapper):
            for inner, parameter in module.modules_to_save[adapter].named_parameters():
                yield f"{name}.{inner}", _replacing(parameter)


def _merging(layer: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def merged(weight: torch.Tensor) -> torch.Tensor:
        base = layer.get_base_layer()
        empty = base.weight
        base.weight = nn.Parameter(weight.float(), requires_grad=False)
        try:
            layer.merge(safe_merge=True)  # which looks for NaN
            new: torch.Tensor = base.weight.data
        except ValueError as error:
            raise AdapterError(str(error), next_step="train again, or take an earlier checkpoint") from None
        finally:
            base.weight = empty
        return new

    return merged


def _replacing(parameter: nn.Parameter) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda _weight: parameter.data


def _stored_name(name: str, model: PreTrainedModel, stored: set[str]) -> str | None:
    """As files have it: some leave out the name of the inner model (GPT-2's `transformer.`)."""
    names = (name, name.removeprefix(f"{model.base_model_prefix}."))
    return next((each for each in names if each in stored), None)


def merged_shard(shard: Shard, read: Read, changes: dict[str, Change]) -> dict[str, torch.Tensor]:
    """The tensors of one file after the merge, each in the type it came in; with those that are made from one of its."""
    tensors: dict[str, torch.Tensor] = {}
    for name in shard.names:
        if name not in changes:
            tensors[name] = read(name)
    for name, change in changes.items():
        if change.takes in shard.names:
            old = read(change.takes)
            tensors[name] = change.make(old).to(old.dtype).contiguous()
    return tensors
