"""A merged model's folder: written aside, checked against base and adapter, and only then there."""

import gc
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from lft.core.adapter_folder import MODEL_CONFIG, NOTES, TunedFolder
from lft.core.errors import AdapterError, PreflightError
from lft.core.files import folder_aside
from lft.train.base_files import CARRIED, Shard, base_folder, shards_of
from lft.train.merge import Change, changes_of, is_untied, merged_shard, open_adapter
from lft.train.model import load_tokenizer, resolve_model

INDEX = "model.safetensors.index.json"
FAR = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
"""How far, as a share of their norm, logits may move: by another order of sums, and by rounding merged weights once.

SmolLM2-135M in bf16: 0.012; a layer that was not merged moves them by more than 0.3.
"""
SENTENCE = "The quick brown fox jumps over the lazy dog, and then tells everyone in the forest about it."


@dataclass(frozen=True, slots=True)
class Likeness:
    """How the merged model's logits differ from those of base and adapter, for one sentence."""

    largest: float
    share: float
    """Norm of the difference, of their norm."""
    same: int
    """Places where both find the same token likeliest."""
    places: int


@dataclass(frozen=True, slots=True)
class Merged:
    """What was written."""

    folder: Path
    tensors: int
    changed: int
    size_bytes: int
    likeness: Likeness | None


def merge(
    tuned: TunedFolder,
    output: Path,
    announce: Callable[[str], None],
    *,
    check: bool = True,
    trust_remote_code: bool = False,
) -> Merged:
    """Write the base model of `tuned` with its adapter merged into `output`, whole or not at all.

    Without `check` no more than one shard is in memory; the check loads the model twice, one after the other.
    Raises PreflightError, and AdapterError where the adapter is damaged or the merged model answers otherwise.
    """
    base = base_folder(resolve_model(tuned.base, announce), tuned.revision)
    shards = shards_of(base)
    _check_room(shards, output)
    adapted = open_adapter(tuned, base, trust_remote_code=trust_remote_code)
    changes = changes_of(adapted, {name for shard in shards for name in shard.names})
    with folder_aside(output) as temporary:
        placed: dict[str, str] = {}
        size_bytes = 0
        for number, shard in enumerate(shards, start=1):
            announce(f"merging    {shard.path.name}, {number} of {len(shards)}")
            names, written = _write_shard(shard, changes, temporary, len(shards))
            placed |= dict.fromkeys(names, written.name)
            size_bytes += written.stat().st_size
        if len(shards) > 1:
            index = {"metadata": {"total_size": size_bytes}, "weight_map": placed}
            (temporary / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        _carry_along(tuned, base, temporary, untied=is_untied(adapted, changes))
        del adapted
        likeness = _checked(tuned, base, temporary, trust_remote_code=trust_remote_code) if check else None
    return Merged(output, len(placed), len(changes), size_bytes, likeness)


def _write_shard(shard: Shard, changes: dict[str, Change], folder: Path, shards: int) -> tuple[list[str], Path]:
    name = shard.path.name if shards > 1 else "model.safetensors"
    path = folder / name.replace("pytorch_model", "model").replace(".bin", ".safetensors")
    with shard.opened() as read:
        tensors = merged_shard(shard, read, changes)
        save_file(tensors, path, metadata={"format": "pt"})
    return list(tensors), path


def _check_room(shards: list[Shard], output: Path) -> None:
    if output.exists():
        raise PreflightError(f"{output} is there already", next_step="name another folder: --output FOLDER")
    parent = next(folder for folder in output.absolute().parents if folder.exists())
    needed, free = sum(shard.path.stat().st_size for shard in shards), shutil.disk_usage(parent).free
    if needed > free:
        raise PreflightError(
            f"the merged model needs {needed / 1e9:.1f} GB, and {parent} has {free / 1e9:.1f} GB",
            next_step="name a folder on another disk: --output FOLDER",
        )


def _carry_along(tuned: TunedFolder, base: Path, folder: Path, *, untied: bool) -> None:
    """The base's other files, and over them the tokenizer that the adapter was trained with."""
    for source in dict.fromkeys((base, Path(tuned.tokenizer))):
        for path in (found for pattern in CARRIED for found in source.glob(pattern) if found.is_file()):
            is_own = path.name.startswith("adapter_") or path.name.endswith(".index.json")
            if not is_own and (source == base or path.name != MODEL_CONFIG):
                shutil.copyfile(path, folder / path.name)
    notes = {key: value for key, value in tuned.notes.items() if key in ("base_model", "prompt_style")}
    (folder / NOTES).write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")
    if untied:
        config = json.loads((folder / MODEL_CONFIG).read_bytes())
        inner = config.get("text_config", config)
        config["tie_word_embeddings"] = inner["tie_word_embeddings"] = False
        (folder / MODEL_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _checked(tuned: TunedFolder, base: Path, folder: Path, *, trust_remote_code: bool) -> Likeness:
    tokenizer = load_tokenizer(tuned.tokenizer, trust_remote_code=trust_remote_code)
    options = {"dtype": "auto", "trust_remote_code": trust_remote_code}
    likeness = compare(tokenizer, lambda: _with_adapter(tuned, base, options), lambda: _load(folder, options))
    if not likeness.share <= FAR.get(_type_of(base), FAR[torch.bfloat16]):
        raise AdapterError(
            f"the merged model does not answer as base and adapter do: its logits differ by {likeness.share:.2g} of their "
            f"norm, and the likeliest token is the same in {likeness.same} of {likeness.places} places; nothing was kept",
            next_step="use the adapter as it is; --no-check writes the merged model all the same",
        )
    return likeness


def _type_of(base: Path) -> torch.dtype:
    """The number type of the largest of the base's first weights."""
    shard = shards_of(base)[0]
    with shard.opened() as read:
        return max(map(read, shard.names), key=torch.Tensor.numel).dtype


def compare(tokenizer: PreTrainedTokenizerBase, *load: Callable[[], Any]) -> Likeness:
    """The logits of two models, in float32 and one after the other, for one sentence."""
    ids = torch.tensor([tokenizer(SENTENCE).input_ids])
    found = []
    for each in load:
        with torch.inference_mode():
            found.append(each()(input_ids=ids).logits[0].float())
        gc.collect()
    first, second = found
    difference = first - second
    same = int((first.argmax(-1) == second.argmax(-1)).sum())
    share = float(difference.norm() / first.norm())
    return Likeness(float(difference.abs().max()), share, same, len(first))


def _load(folder: Path, options: dict[str, Any]) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, **options).float().eval()


def _with_adapter(tuned: TunedFolder, base: Path, options: dict[str, Any]) -> Any:
    return PeftModel.from_pretrained(_load(base, options), str(tuned.folder)).eval()
