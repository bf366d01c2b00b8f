"""The random generators of one rank: Python's, NumPy's, torch's and its GPU's, as tensors that a file can hold."""

import json
import random

import numpy as np
import torch

RandomState = dict[str, torch.Tensor]


def random_state() -> RandomState:
    """Where each generator is now."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    key = numpy["state"]["key"].tolist()
    others = {"python": random.getstate(), "numpy": numpy | {"state": numpy["state"] | {"key": key}}}
    state = {"torch": torch.get_rng_state(), "others": _as_bytes(json.dumps(others))}
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def restore_random(state: RandomState) -> None:
    """Go on from where `random_state` was called."""
    others = json.loads(bytes(state["others"].numpy()))
    version, numbers, gauss = others["python"]
    random.setstate((version, tuple(numbers), gauss))
    numpy = others["numpy"]
    numpy["state"]["key"] = np.array(numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy)
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _as_bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
