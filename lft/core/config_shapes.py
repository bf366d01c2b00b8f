"""The weights of a model by its config.json alone: their names, shapes and types, where no checkpoint says them."""

from collections.abc import Mapping
from typing import Any

from lft.core.safetensors_header import TensorInfo, Tensors


def derived_weights(config: Mapping[str, Any], hidden: int) -> dict[str, TensorInfo]:
    """The large weights of a GPT-2 or Llama-like model by its configuration; biases and norms (below 0.1 %) left out.

    Raises ValueError for another kind of model.
    """
    layers = int(first(config, "num_hidden_layers", "n_layer"))
    vocabulary, kind = int(config["vocab_size"]), config["model_type"]
    shapes: dict[str, tuple[int, int]] = {}
    if kind == "gpt2":
        inner = int(config.get("n_inner") or 4 * hidden)
        shapes = {"attn.c_attn": (hidden, 3 * hidden), "attn.c_proj": (hidden, hidden)}
        shapes |= {"mlp.c_fc": (hidden, inner), "mlp.c_proj": (inner, hidden)}
    elif "rms_norm_eps" in config and "intermediate_size" in config and not first(config, "num_experts", default=0):
        heads, inner = int(config["num_attention_heads"]), int(config["intermediate_size"])
        size = int(config.get("head_dim") or hidden // heads)
        keys = int(config.get("num_key_value_heads") or heads) * size
        shapes = {"self_attn.q_proj": (heads * size, hidden), "self_attn.o_proj": (hidden, heads * size)}
        shapes |= {"self_attn.k_proj": (keys, hidden), "self_attn.v_proj": (keys, hidden)}
        shapes |= {"mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner)}
    else:
        raise ValueError(f"no safetensors header to read, and the shapes of a {kind} model are not derived")
    kept = config_type(config)
    found = {
        f"layers.{layer}.{name}.weight": TensorInfo(kept, shape)
        for layer in range(layers)
        for name, shape in shapes.items()
    }
    found["embed_tokens.weight"] = TensorInfo(kept, (vocabulary, hidden))
    if "n_positions" in config:
        found["wpe.weight"] = TensorInfo(kept, (int(config["n_positions"]), hidden))
    if not is_tied(config, {}):
        found["lm_head.weight"] = TensorInfo(kept, (vocabulary, hidden))
    return found


def is_tied(config: Mapping[str, Any], tensors: Tensors) -> bool:
    """What the configuration says, or else whether the checkpoint has no output projection; GPT-2 ties by default."""
    if "tie_word_embeddings" in config:
        return bool(config["tie_word_embeddings"])
    has_head = any(name.endswith(("lm_head.weight", "embed_out.weight")) for name in tensors)
    return not has_head if tensors else config["model_type"] in ("gpt2", "gemma", "gemma2", "opt", "bloom")


def config_type(config: Mapping[str, Any]) -> str:
    """The safetensors name of the type config.json says; float32, as transformers has it, where it says none."""
    named = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    return {"bfloat16": "BF16", "float16": "F16"}.get(named, "F32")


def first(config: Mapping[str, Any], *names: str, default: Any = None) -> Any:
    """The value of the first of these names that has one. Raises KeyError without any and without a default."""
    for name in names:
        if config.get(name) is not None:
            return config[name]
    if default is None:
        raise KeyError(names[0])
    return default
