"""A run file as people write one: sections, a key a line, and why it has its value beside it."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml

from lft.core.settings import RunSettings

WIDEST = 120
"""Characters of a line; a longer comment stands above its key."""


class Entry(NamedTuple):
    """A setting to be written."""

    value: Any
    comment: str = ""
    """Why it has its value; what it means where nothing is said."""


def run_file_text(entries: Mapping[str, Entry], head: str) -> str:
    """The text of a run file that holds exactly these settings, by their dotted names, in the order of the reference.

    `head` is what the first lines say, as comments. Whatever a value holds, it is read back as it is.
    """
    lines = [f"# {_plain(line)}".rstrip() for line in head.splitlines()]
    for section, field in RunSettings.model_fields.items():
        if section in entries:
            meaning = field.description or ""
            lines += ["", *_key(section, entries[section], meaning, "")]
            continue
        inside = getattr(field.annotation, "model_fields", {})
        given = {name: entries[f"{section}.{name}"] for name in inside if f"{section}.{name}" in entries}
        if given:
            lines += ["", f"{section}:"]
            for name, entry in given.items():
                lines += _key(name, entry, inside[name].description or "", "  ")
    return "\n".join(lines) + "\n"


def nested(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as sections."""
    values: dict[str, Any] = {}
    for dotted, value in entries.items():
        *sections, name = dotted.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return values


def _key(name: str, entry: Entry, meaning: str, indent: str) -> Iterator[str]:
    comment = _plain(entry.comment or first_sentence(meaning))
    line = f"{indent}{name}: {scalar(entry.value)}"
    if len(line) + len(comment) + 4 <= WIDEST:
        yield f"{line:<34}  # {comment}" if comment else line
    else:
        yield f"{indent}# {comment}"
        yield line


def _plain(words: str) -> str:
    """On one line, and without what YAML takes nowhere, not even in a remark."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in words).split())


def scalar(value: Any) -> str:
    """A value on one line. Texts that YAML would cut or read as something else are quoted."""
    style = '"' if isinstance(value, str) and not value.isprintable() else None
    text: str = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=10**9, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def first_sentence(meaning: str) -> str:
    """Of a setting's documentation, as a remark."""
    words = meaning.split(". ")[0].split("; ")[0].rstrip(".").replace("\n", " ")
    return words[:1].lower() + words[1:] if words[1:2].islower() else words
