"""What a GGUF file holds, from its header alone, as configuration and tensors of the model it is turned into.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import struct
from pathlib import Path
from typing import Any

from lft.core.safetensors_header import TensorInfo

# GGUF's names of the layers -> those of the model; whatever else has Llama's names is Llama-like.
LLAMA_LAYERS = {"attn_q": "q_proj", "attn_k": "k_proj", "attn_v": "v_proj", "attn_output": "o_proj"} | {
    "ffn_gate": "gate_proj",
    "ffn_up": "up_proj",
    "ffn_down": "down_proj",
}
GPT2_LAYERS = {"attn_qkv": "c_attn", "attn_output": "c_proj", "ffn_up": "c_fc", "ffn_down": "c_proj"}
CONFIG_KEYS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "head_dim": "attention.key_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}


def gguf_model(path: Path) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
    """Configuration and tensors, as those of the bf16 folder that training makes of the file.

    Raises OSError or ValueError for a file that is broken, KeyError for one that lacks something.
    """
    pairs, tensors = read_gguf_header(path)
    kind = pairs["general.architecture"]
    config = {key: pairs[f"{kind}.{name}"] for key, name in CONFIG_KEYS.items() if f"{kind}.{name}" in pairs}
    config |= {"model_type": kind, "vocab_size": tensors["token_embd.weight"].shape[0]}
    config |= {"hidden_act": "gelu_new" if kind == "gpt2" else "silu"}
    return config, {_renamed(name, kind): _turned(name, kind, info) for name, info in tensors.items()}


def _renamed(name: str, kind: str) -> str:
    """`blk.0.attn_q.weight` -> `layers.0.self_attn.q_proj.weight`."""
    parts = name.split(".")
    if parts[0] == "output":
        return "lm_head.weight"
    if parts[0] != "blk":
        return name
    layers = GPT2_LAYERS if kind == "gpt2" else LLAMA_LAYERS
    module = "mlp" if parts[2].startswith("ffn") else "self_attn"
    return ".".join(["layers", parts[1], module, layers.get(parts[2], parts[2]), *parts[3:]])


def _turned(name: str, kind: str, info: TensorInfo) -> TensorInfo:
    """Weights become bf16; those of GPT-2's layers are (in, out) in its checkpoints, and (out, in) in a GGUF file."""
    is_turned = kind == "gpt2" and name.startswith("blk.") and len(info.shape) == 2
    return TensorInfo("BF16", info.shape[::-1] if is_turned else info.shape)


def read_gguf_header(path: Path) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
    """Its key-value pairs, arrays left out, and its tensors. Raises OSError or ValueError.

    0.03 s for a vocabulary of 49,152 tokens, for which the package gguf takes 2.6 s, since it keeps every string.
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return _GgufHeader(content).read()
        except (struct.error, KeyError, UnicodeDecodeError):
            raise ValueError(f"{path.name} is no GGUF file, or only a part of one") from None


_STRING, _ARRAY = 8, 9
_SCALARS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))
_OLDEST_VERSION = 2  # version 1 counted in 32 bits


class _GgufHeader:
    """A cursor over the file's first bytes, little-endian."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.place = content, 0

    def read(self) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
        """Everything before the weights. Raises struct.error at the end of the file, KeyError for an unknown type."""
        if self.content[:4] != b"GGUF" or not _OLDEST_VERSION <= struct.unpack_from("<I", self.content, 4)[0] < 1 << 16:
            raise KeyError("magic")
        self.place = 8
        tensor_count, pair_count = self.number("Q"), self.number("Q")
        pairs = {self.text(): self.value(self.number("I")) for _ in range(pair_count)}
        tensors = {}
        for _ in range(tensor_count):
            name = self.text()
            dimensions = [self.number("Q") for _ in range(self.number("I"))]
            tensors[name] = TensorInfo(f"ggml-{self.number('I')}", tuple(reversed(dimensions)))
            self.place += 8  # where its data are
        return pairs, tensors

    def number(self, kind: str) -> Any:
        value = struct.unpack_from(f"<{kind}", self.content, self.place)[0]
        self.place += struct.calcsize(f"<{kind}")
        return value

    def text(self) -> str:
        length = self.number("Q")
        self.place += length
        return self.content[self.place - length : self.place].decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self.skip_array()
        return self.number(_SCALARS[kind])

    def skip_array(self) -> None:
        inner, count = self.number("I"), self.number("Q")
        if inner in _SCALARS:
            self.place += count * struct.calcsize(f"<{_SCALARS[inner]}")
            return
        unpack, place = struct.Struct("<Q").unpack_from, self.place
        if inner != _STRING:
            raise KeyError(inner)
        for _ in range(count):
            place += 8 + unpack(self.content, place)[0]
        self.place = place
