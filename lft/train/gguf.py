"""A GGUF file turned, once, into a plain trainable model folder in the cache.

transformers reads GGUF, but marks the model as quantized, so that it can be neither saved nor trained; hence the weights are
copied into a fresh model of the same configuration. The folder is named by the file's content, and appears whole or not
at all.
"""

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from lft.core.errors import DataError, PreflightError
from lft.core.files import folder_aside

VERSION = 1
"""Part of the folder's name: raise it when the same file would become another model."""


def converted_folder(gguf: Path, cache: Path, announce: Callable[[str], None]) -> Path:
    """The model folder made from `gguf`, converted now if nobody has done so. Raises PreflightError, DataError."""
    with gguf.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = cache / "models" / f"{gguf.stem}-{digest[:16]}-v{VERSION}"
    if folder.is_dir():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise PreflightError(f"reading {gguf.name} needs the package gguf", next_step="pip install 'lft[gguf]'")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # the lock only saves the others the work; without it the rename would still be right
    with FileLock(folder.with_suffix(".lock")):
        if not folder.is_dir():
            announce(f"model      turning {gguf.name} into a trainable model, once: {folder}")
            with folder_aside(folder) as temporary:
                _convert(gguf, temporary)
    return folder


def _convert(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
    except (ValueError, KeyError, OSError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{gguf} cannot be read as a GGUF model: {error}") from None
    settings = loaded.config.to_dict()
    for mark in ("quantization_config", "_name_or_path"):
        settings.pop(mark, None)
    plain = AutoModelForCausalLM.from_config(type(loaded.config).from_dict(settings), dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict(), strict=True)
    plain.tie_weights()
    plain.generation_config = loaded.generation_config
    plain.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
