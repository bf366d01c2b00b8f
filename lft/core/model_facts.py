"""What a model is, from its configuration and its checkpoint's header: no weights are read, and no torch.

Sources: a folder; a .gguf file; a Hub model, from the local cache or else from the Hub. What cannot be known is an
UnknownModel with the reason, never an exception.
"""

import json
import math
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lft.core.config_shapes import config_type, derived_weights, first, is_tied
from lft.core.errors import PreflightError
from lft.core.gguf_header import gguf_model
from lft.core.logits import what_changes_logits
from lft.core.lora_targets import (
    adapted_layers,
    block_of,
    family_of,
    is_target,
    missing_modules,
    missing_targets,
    tied_modules,
)
from lft.core.paths import expanded, looks_local
from lft.core.safetensors_header import TensorInfo, Tensors, safetensors_in
from lft.core.settings import LoraSettings, ModelSettings

HUB_TIMEOUT_SECONDS = 5.0
"""For all questions to the Hub together: a plan is no reason to wait."""

CheckpointType = Literal["bf16", "fp16", "fp32", "quantized"]
_TYPES: dict[str, tuple[CheckpointType, int]] = {"BF16": ("bf16", 2), "F16": ("fp16", 2), "F32": ("fp32", 4)}
_BUFFERS = (".attn.bias", ".attn.masked_bias", ".inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached")
_TRANSPOSED = {"gpt2"}  # their layers are Conv1D, whose weights are (in, out)
_GATED = ("gate_proj", "gate_up_proj", "ffn_gate", "w1")


class Shape(BaseModel):
    """A linear layer's numbers of inputs and outputs."""

    model_config = ConfigDict(frozen=True)

    inputs: int
    outputs: int


class ModelFacts(BaseModel):
    """The facts a memory prediction is made from."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model_type: str
    parameters: int
    """Each tied weight counted once."""
    checkpoint_bytes: dict[str, int]
    """Bytes in the checkpoint per type, as the file writes the types; empty where only the configuration is known."""
    checkpoint_type: CheckpointType
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied_embeddings: bool
    max_positions: int | None
    is_gated: bool
    """The MLP multiplies two projections, as Llama's does."""
    has_rms_norm: bool
    activation: str
    attention_dropout: float
    hidden_dropout: float
    """Dropout on what attention and MLP add to the residual stream."""
    changes_logits: bool
    """Its forward changes what the output projection returns."""
    linear_layers: dict[str, Shape]
    """Full name -> shape of every layer LoRA can sit on; the output projection is not one of them."""
    modules: dict[str, int] = {}
    """Full name -> number of parameters of every module that has its own: layers, norms, embeddings, output projection."""

    def adapted(self, lora: LoraSettings) -> dict[str, Shape]:
        """The layers that get an adapter."""
        names = adapted_layers(self.linear_layers, lora.target_modules)
        wanted = lora.layers_to_transform
        return {name: self.linear_layers[name] for name in names if wanted is None or block_of(name) in wanted}

    def trained_parameters(self, lora: LoraSettings) -> int:
        """R x (inputs + outputs) for every adapted layer (Hu et al. 2021), as peft counts them; and modules trained whole.

        DoRA has one more for each output (Liu et al. 2024, arXiv:2402.09353).
        """
        adapters = sum(
            lora.r * (shape.inputs + shape.outputs) + shape.outputs * lora.use_dora
            for shape in self.adapted(lora).values()
        )
        return adapters + self.whole_parameters(lora)

    def whole_parameters(self, lora: LoraSettings) -> int:
        """Those of the modules that are trained whole."""
        return sum(
            size for name, size in self.modules.items() if any(is_target(name, each) for each in lora.modules_to_save)
        )

    def quantized_parameters(self) -> int:
        """What bitsandbytes quantizes: the linear layers, without the output projection."""
        return sum(shape.inputs * shape.outputs for shape in self.linear_layers.values())

    def refused_layers(self, lora: LoraSettings) -> PreflightError | None:
        """The error that names layers or modules the model surely lacks, or shares; None where there is none.

        Sure are only the last parts of names, as a checkpoint of a known family has them: loading adds to the way to a
        layer, derived shapes are a guess, and other models may call their layers something else than their files do.
        """
        is_sure = self.checkpoint_bytes and self.checkpoint_type != "quantized"
        if not is_sure or isinstance(family_of(self.linear_layers), str):
            return None
        targets = () if isinstance(lora.target_modules, str) else _ends(lora.target_modules)
        whole = _ends(lora.modules_to_save)
        vocabulary = {name for name, size in self.modules.items() if size == self.vocab_size * self.hidden_size}
        tied = vocabulary | {"lm_head"} if self.tied_embeddings else set()
        return (
            missing_targets(self.linear_layers, targets)
            or missing_modules(tied | _with_parents(self.modules), whole)
            or tied_modules(tied, whole)
        )


def _ends(names: Sequence[str]) -> list[str]:
    return [name.rsplit(".", 1)[-1] for name in names]


def _with_parents(names: Collection[str]) -> set[str]:
    """Full names of modules, and of the modules these are in."""
    return {".".join(parts[: end + 1]) for parts in (name.split(".") for name in names) for end in range(len(parts))}


class UnknownModel(BaseModel):
    """Why there are no facts."""

    model_config = ConfigDict(frozen=True)

    reason: str = "nobody has looked at the model"


def read_model_facts(model: ModelSettings) -> ModelFacts | UnknownModel:
    """The facts about a folder, a .gguf file or a Hub model; asks the Hub only for what the local cache lacks."""
    path = expanded(model.name)
    try:
        if path.suffix.lower() == ".gguf" and path.is_file():
            return facts_from(*gguf_model(path))
        if looks_local(model.name):
            return _of_folder(path)
        return _of_cache(model) or _of_hub(model)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        lacking = f"it lacks {error}" if isinstance(error, KeyError) else str(error).strip().split("\n")[0]
        return UnknownModel(reason=f"{path.name}: {lacking}")


def facts_from(config: Mapping[str, Any], tensors: Tensors) -> ModelFacts:
    """Facts from a config.json and the header of a checkpoint; without tensors, the shapes are derived.

    Raises KeyError, ValueError or TypeError where something is missing or of another kind.
    """
    text = {**config, **config.get("text_config", {})}
    kind = str(text["model_type"])
    quantized = "quantization_config" in config or any(_is_packed(info) for info in tensors.values())
    weights = {} if quantized else _weights(text, tensors)
    checkpoint_bytes: dict[str, int] = {}
    for info in tensors.values():
        size = _TYPES.get(info.dtype, ("", 1))[1] * math.prod(info.shape)
        checkpoint_bytes[info.dtype] = checkpoint_bytes.get(info.dtype, 0) + size
    hidden = int(first(text, "hidden_size", "n_embd", "d_model"))
    heads = int(first(text, "num_attention_heads", "n_head", "n_heads"))
    weights = weights or derived_weights(text, hidden)
    linear = {name.removesuffix(".weight"): info for name, info in weights.items() if _is_linear(name, info)}
    flip = -1 if kind in _TRANSPOSED else 1
    shapes = {}
    for name, info in linear.items():
        outputs, inputs = info.shape[::flip]
        shapes[name] = Shape(inputs=inputs, outputs=outputs)
    main = max(checkpoint_bytes, key=lambda name: checkpoint_bytes[name], default=config_type(config))
    return ModelFacts(
        model_type=kind,
        parameters=sum(math.prod(info.shape) for info in weights.values()),
        checkpoint_bytes=checkpoint_bytes,
        checkpoint_type="quantized" if quantized else _TYPES[main][0],
        hidden_size=hidden,
        layers=int(first(text, "num_hidden_layers", "n_layer", "n_layers")),
        heads=heads,
        kv_heads=int(first(text, "num_key_value_heads", "num_kv_heads", default=heads)),
        head_dim=int(text.get("head_dim") or hidden // heads),
        intermediate_size=int(first(text, "intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)),
        vocab_size=int(text["vocab_size"]),
        tied_embeddings=is_tied(text, tensors),
        max_positions=first(text, "max_position_embeddings", "n_positions", default=0) or None,
        is_gated=any(name.rsplit(".", 1)[-1] in _GATED for name in shapes),
        has_rms_norm=any("rms" in key for key in text),
        activation=str(first(text, "hidden_act", "activation_function", "hidden_activation", default="gelu")),
        attention_dropout=float(first(text, "attention_dropout", "attn_pdrop", default=_gpt2_default(kind))),
        hidden_dropout=float(first(text, "resid_pdrop", "hidden_dropout", "dropout", default=_gpt2_default(kind))),
        changes_logits=what_changes_logits(text) is not None,
        linear_layers=shapes,
        modules=_modules(weights),
    )


def _of_folder(folder: Path) -> ModelFacts:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return facts_from(config, safetensors_in(folder))


def _of_cache(model: ModelSettings) -> ModelFacts | None:
    """From a snapshot in huggingface_hub's cache, if its weights are there."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model.name, "config.json", revision=model.revision)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    return _of_folder(folder) if weights else None


def _of_hub(model: ModelSettings) -> ModelFacts | UnknownModel:
    """From the Hub's metadata: config.json and the headers of the checkpoint, a few kilobytes."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return UnknownModel(reason=f"{model.name} is not in the local cache, and HF_HUB_OFFLINE is set")
    found: list[ModelFacts | UnknownModel] = []
    asking = threading.Thread(target=lambda: found.append(_ask_hub(model)), daemon=True)
    asking.start()
    asking.join(HUB_TIMEOUT_SECONDS)
    late = UnknownModel(reason=f"the Hub did not answer about {model.name} within {HUB_TIMEOUT_SECONDS:.0f} s")
    return found[0] if found else late


def _ask_hub(model: ModelSettings) -> ModelFacts | UnknownModel:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import NotASafetensorsRepoError

    try:
        config = json.loads(Path(hf_hub_download(model.name, "config.json", revision=model.revision)).read_text())
        tensors: dict[str, TensorInfo] = {}
        try:
            metadata = HfApi().get_safetensors_metadata(model.name, revision=model.revision)
            for file in metadata.files_metadata.values():
                tensors |= {name: TensorInfo(info.dtype, tuple(info.shape)) for name, info in file.tensors.items()}
        except NotASafetensorsRepoError:
            pass  # the shapes are derived
        return facts_from(config, tensors)
    except Exception as error:  # a network has many ways to fail; the message may hold addresses, the class does not
        return UnknownModel(reason=f"the Hub says nothing about {model.name} ({type(error).__name__})")


_EMBEDDINGS = ("wte", "wpe", "token_embd", "position_embd", "embed_in", "lm_head", "embed_out")


def _is_linear(name: str, info: TensorInfo) -> bool:
    """Embeddings, output projection and the fused experts of a mixture are none that LoRA sits on by itself."""
    parts = name.split(".")
    is_embedding = parts[-2] in _EMBEDDINGS or "embed" in parts[-2] if len(parts) > 1 else True
    return name.endswith(".weight") and len(info.shape) == 2 and not is_embedding and "experts" not in parts


def _is_packed(info: TensorInfo) -> bool:
    """Whether a tensor holds numbers of fewer than 16 bits, which are not the weights themselves."""
    return info.dtype in ("U8", "I8", "I32") or info.dtype.startswith("F8")


def _weights(config: Mapping[str, Any], tensors: Tensors) -> dict[str, TensorInfo]:
    """The tensors that are parameters; a tied output projection is the embedding."""
    tied = is_tied(config, tensors)
    return {
        name: info
        for name, info in tensors.items()
        if not name.endswith(_BUFFERS) and not (tied and name.rsplit(".", 2)[-2] in ("lm_head", "embed_out"))
    }


def _modules(weights: Mapping[str, TensorInfo]) -> dict[str, int]:
    """The number of parameters of each module, weight and bias together."""
    found: dict[str, int] = {}
    for name, info in weights.items():
        module = name.rpartition(".")[0]
        found[module] = found.get(module, 0) + math.prod(info.shape)
    return found


def _gpt2_default(kind: str) -> float:
    """Transformers' default dropout, which config.json leaves out where it applies."""
    return 0.1 if kind == "gpt2" else 0.0
