"""The tensors of a safetensors checkpoint by name, type and shape, from its header alone.

The format: https://github.com/huggingface/safetensors#format
"""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
LONGEST_HEADER_BYTES = 100_000_000
"""The safetensors format's own limit."""


class TensorInfo(NamedTuple):
    """`dtype` as the file writes it (BF16, F32, ...); `shape` in torch's order."""

    dtype: str
    shape: tuple[int, ...]


Tensors = Mapping[str, TensorInfo]


def safetensors_in(folder: Path) -> dict[str, TensorInfo]:
    """All tensors of a model folder, over its shards; none where it holds no safetensors.

    Raises OSError or ValueError for a file that is broken.
    """
    if (folder / INDEX).is_file():
        weight_map = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
    else:
        shards = [SINGLE] if (folder / SINGLE).is_file() else []
    return {name: info for shard in shards for name, info in read_safetensors_header(folder / shard).items()}


def read_safetensors_header(path: Path) -> dict[str, TensorInfo]:
    """8 bytes of length, then JSON. Raises OSError or ValueError."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))
        if not 0 < length <= min(LONGEST_HEADER_BYTES, path.stat().st_size - 8):
            raise ValueError(f"{path.name} is no safetensors file, or only a part of one")
        header = json.loads(stream.read(length))
    return {
        name: TensorInfo(info["dtype"], tuple(info["shape"])) for name, info in header.items() if name != "__metadata__"
    }
