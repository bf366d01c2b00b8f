"""The name of prepared tokens: a digest of all that decides them and of nothing else.

In it: the data's content, the tokenizer's files, the settings below, and the versions of this stage and of the libraries that
render and tokenize. Not in it: names of files and folders, the output directory, the number of ranks, and all that is decided
after tokenizing (held_out, weights, packing, on_bad_row, seed).
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lft.core.paths import expanded, looks_local
from lft.core.settings import DataSettings, ModelSettings
from lft.data.shard_format import VERSION

LIBRARIES = ("tokenizers", "transformers", "Jinja2")
SETTINGS = ("text_columns", "prompt_template", "completion_template", "loss_on", "max_length", "num_samples")
"""Settings of the section data that decide the tokens; the chat template is added as text, not as the name of its file."""

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("chat_template.json", "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model"),
    *("sentencepiece.bpe.model", "tekken.json", "tiktoken.model"),
)
CONFIG = "config.json"
CONFIG_KEYS = ("model_type", "tokenizer_class", "auto_map", "max_position_embeddings", "n_positions", "n_ctx")
"""Of config.json only what chooses the tokenizer's class and bounds the length of rows."""


def cache_key(source: Sequence[Any], tokenizer: str, data: DataSettings, chat_template: str | None) -> str:
    """`source` is a Source's identity, `tokenizer` what one of the two functions below says of a tokenizer."""
    libraries = {name: version(name) for name in LIBRARIES}
    settings = data.model_dump(mode="json", include=set(SETTINGS))
    parts = {
        "stage": VERSION,
        "libraries": libraries,
        "settings": settings,
        "chat_template": chat_template,
        "tokenizer": tokenizer,
        "source": source,
    }
    return _digest([json.dumps(parts, sort_keys=True).encode()])


def tokenizer_on_disk(model: ModelSettings) -> str | None:
    """The digest of the files a model's tokenizer is made of; None where they are not on this machine yet.

    Files come from the model's folder, from the Hub's cache (no network), or are one .gguf file.
    """
    path = expanded(model.name)
    if path.is_file():
        return _digest([str(path.stat().st_size).encode(), _head(path)])
    if looks_local(model.name):
        found = {name: path / name for name in (*TOKENIZER_FILES, CONFIG) if (path / name).is_file()}
        code = sorted(path.glob("*.py")) if model.trust_remote_code else []
    else:
        from huggingface_hub import try_to_load_from_cache  # 0.2 s, which local models need not pay

        cached = {
            name: try_to_load_from_cache(model.name, name, revision=model.revision)
            for name in (*TOKENIZER_FILES, CONFIG)
        }
        found = {name: Path(file) for name, file in cached.items() if isinstance(file, str)}
        code = sorted(found[CONFIG].parent.glob("*.py")) if model.trust_remote_code and CONFIG in found else []
    if not set(found) - {CONFIG}:
        return None
    contents = [
        name.encode() + b"\0" + (_chosen(file) if name == CONFIG else file.read_bytes())
        for name, file in sorted(found.items())
    ]
    return _digest([*contents, *(file.read_bytes() for file in code)])


def tokenizer_in_memory(tokenizer: Any, longest: int | None) -> str:
    """The digest of a loaded tokenizer, which its owner may have changed; `longest` is the model's number of positions."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    special = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    return _digest(each.encode() for each in (text, special, str(tokenizer.chat_template), str(longest)))


def _chosen(config: Path) -> bytes:
    values = json.loads(config.read_bytes())
    text = values.get("text_config") or {}
    return json.dumps({key: values.get(key, text.get(key)) for key in CONFIG_KEYS}, sort_keys=True).encode()


def _head(path: Path) -> bytes:
    """The beginning of a .gguf file, which holds its tokenizer (5 MB for a vocabulary of 128,000)."""
    with path.open("rb") as stream:
        return stream.read(16 * 2**20)


def _digest(contents: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for content in contents:
        digest.update(hashlib.blake2b(content).digest())  # of equal length, so that parts cannot run into each other
    return digest.hexdigest()
