"""The weights of a base model as they lie in its files: shard by shard, without the model."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import safe_open

from lft.core.errors import PreflightError
from lft.core.paths import looks_local

# what a model folder holds apart from its weights
CARRIED = ("*.json", "*.py", "*.txt", "*.model", "*.jinja", "LICENSE*")
SUFFIXES = (".safetensors", ".bin")
Read = Callable[[str], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of weights."""

    path: Path
    names: tuple[str, ...]
    """Of its tensors."""

    @contextmanager
    def opened(self) -> Iterator[Read]:
        """Reads single tensors; what is not read takes no memory."""
        if self.path.suffix == ".bin":
            yield torch.load(self.path, map_location="cpu", mmap=True, weights_only=True).__getitem__
        else:
            with safe_open(self.path, framework="pt") as file:
                yield file.get_tensor


def base_folder(resolved: str, revision: str | None) -> Path:
    """The folder with the base's files, fetched from the Hub or found in its cache. Raises PreflightError."""
    if looks_local(resolved):
        return Path(resolved)
    try:
        folder = Path(snapshot_download(resolved, revision=revision, allow_patterns=[*CARRIED, "*.safetensors"]))
        if not list(folder.glob("*.safetensors")):
            snapshot_download(resolved, revision=revision, allow_patterns=["*.bin"])
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PreflightError(
            f'the base model "{resolved}" cannot be had: {reason}',
            next_step="hf auth login for private models, or name a copy of it: --model FOLDER",
        ) from None
    return folder


def shards_of(folder: Path) -> list[Shard]:
    """The files of weights that a model folder's index names, or its only one, with the names of their tensors."""
    for suffix, stem in zip(SUFFIXES, ("model", "pytorch_model"), strict=True):
        index, single = folder / f"{stem}{suffix}.index.json", folder / f"{stem}{suffix}"
        if index.exists():
            placed: dict[str, str] = json.loads(index.read_bytes())["weight_map"]
            files = sorted(set(placed.values()))
            missing = [file for file in files if not (folder / file).exists()]
            if missing:
                raise PreflightError(f"{folder} lacks {', '.join(missing)}", next_step="fetch the model again")
            return [Shard(folder / file, tuple(name for name in placed if placed[name] == file)) for file in files]
        if single.exists():
            return [Shard(single, _names(single))]
    raise PreflightError(
        f"{folder} holds no weights: model.safetensors or pytorch_model.bin, or an index of several, is expected",
        next_step="name the folder or Hub id of the base model: --model NAME",
    )


def _names(path: Path) -> tuple[str, ...]:
    if path.suffix == ".bin":
        return tuple(torch.load(path, map_location="cpu", mmap=True, weights_only=True))
    with safe_open(path, framework="pt") as file:
        return tuple(file.keys())
