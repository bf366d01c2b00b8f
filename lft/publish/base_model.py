"""What the card says of the base model: its name for others, and its license where that is known."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelCard, try_to_load_from_cache

from lft.core.gguf_header import read_gguf_header
from lft.core.paths import expanded, looks_local
from lft.publish.markdown import one_line

LINK = re.compile(r"https://[\w\-.~:/?#@!$&'*+,;=%]+")
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
TIME_LIMIT_SECONDS = 10.0
LICENSE_KEYS = ("license", "license_name", "license_link")


@dataclass(frozen=True, slots=True)
class License:
    """As the metadata of a card has it."""

    license: str
    license_name: str | None = None
    license_link: str | None = None

    @classmethod
    def of(cls, metadata: Mapping[str, Any] | None) -> "License | None":
        """That of a card's metadata; None where there is none."""
        found = {key: (metadata or {}).get(key) for key in LICENSE_KEYS}
        texts = {key: one_line(value) for key, value in found.items() if isinstance(value, str) and value}
        if "license" not in texts:
            return None
        link = texts.get("license_link", "")
        return cls(texts["license"], texts.get("license_name"), link if LINK.fullmatch(link) else None)


def is_public(base: str) -> bool:
    """Whether others can have the base model from the Hub."""
    return bool(HUB_NAME.fullmatch(base)) and not looks_local(base)


def known_license(base: str, revision: str | None = None) -> License | None:
    """The base model's license as its own files here say: card of the folder, header of the GGUF file, card in the cache."""
    if not base:
        return None
    path = expanded(base)
    if path.suffix.lower() == ".gguf":
        return _license_of_gguf(path)
    if looks_local(base):
        return _license_of_card(path / "README.md")
    if is_public(base):
        found = try_to_load_from_cache(base, "README.md", revision=revision)
        return _license_of_card(Path(found)) if isinstance(found, str) else None
    return None


def license_on_hub(api: HfApi, base: str, revision: str | None = None) -> License | None:
    """What the Hub says; None where it does not answer, since no upload depends on it."""
    if not is_public(base):
        return None
    try:
        card = api.model_info(base, revision=revision, timeout=TIME_LIMIT_SECONDS).card_data
    except Exception:  # the client raises its own, its HTTP library's and the operating system's
        return None
    return License.of(vars(card) if card else None)


def card_metadata(path: Path) -> dict[str, Any]:
    """The metadata at the top of a card; empty where there is none that can be read."""
    try:
        found = vars(ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data)
    except Exception:  # whatever YAML's and the client's parsers raise for a card that is none
        return {}
    return found


def _license_of_card(path: Path) -> License | None:
    return License.of(card_metadata(path))


def _license_of_gguf(path: Path) -> License | None:
    try:
        pairs, _ = read_gguf_header(path)
    except (OSError, ValueError):
        return None
    return License.of({key: pairs.get(f"general.{key.replace('_', '.')}") for key in LICENSE_KEYS})
