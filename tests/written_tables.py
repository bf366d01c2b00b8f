"""Writes the tables of docs/ that the code knows: `python -m tests.written_tables`. A test compares.

On the run file page, the table of a section is the first one below its heading; a section without a heading gets one. Of
other pages it is the one below a comment with its name. All else is written by hand.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lft.core.settings import RunSettings
from tests.memory_tables import TABLES

DOCS = Path(__file__).parent.parent / "docs"
HEAD = ["| key | type | default | meaning |", "|---|---|---|---|"]
LAST = "output_dir"


def pages() -> dict[Path, str]:
    """Every page with such tables, as it should be now; what stands around the tables is as it is."""
    found = {DOCS / "run-file.md": run_file_page((DOCS / "run-file.md").read_text(encoding="utf-8"))}
    for name, tables in TABLES.items():
        text = (DOCS / name).read_text(encoding="utf-8")
        for title, rows in tables.items():
            text = _replaced(text, f"<!-- table: {title} -->\n", "\n".join(rows()) + "\n")
        found[DOCS / name] = text
    return found


def run_file_page(page: str) -> str:
    """The run file page with the tables of the settings."""
    for name, field in RunSettings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            page = _with_table(page, name, section.__doc__ or "", _rows(section, f"{name}."))
    alone = {LAST: RunSettings.model_fields[LAST]}
    return _with_table(page, LAST, "", [_row(key, field, _schema(RunSettings)[key]) for key, field in alone.items()])


def _with_table(page: str, name: str, about: str, rows: list[str]) -> str:
    table = "\n".join([*HEAD, *rows]) + "\n"
    if f"\n## {name}\n" not in page:
        page = page.replace(f"\n## {LAST}\n", f"\n## {name}\n\n{about}\n\n{HEAD[0]}\n\n## {LAST}\n")
    return _replaced(page, f"\n## {name}\n", table)


def _replaced(page: str, mark: str, table: str) -> str:
    """The page with another table in place of the first one after a mark."""
    before, found, after = page.partition(mark)
    return before + found + re.sub(r"(?m)(^\|.*\n)+", lambda _: table, after, count=1)


def _rows(section: type[BaseModel], prefix: str) -> list[str]:
    schema = _schema(section)
    return [_row(prefix + key, field, schema[key]) for key, field in section.model_fields.items()]


def _schema(section: type[BaseModel]) -> dict[str, Any]:
    properties: dict[str, Any] = section.model_json_schema()["properties"]
    return properties


def _row(key: str, field: FieldInfo, schema: dict[str, Any]) -> str:
    meaning = (field.description or "").replace("\n", " ")
    return f"| `{key}` | {' or '.join(_types(schema))} | {_default(field.default)} | {meaning} |"


def _types(schema: dict[str, Any]) -> list[str]:
    """What a value may be, in words."""
    if "anyOf" in schema:
        return [words for each in schema["anyOf"] for words in _types(each)]
    if "enum" in schema or "const" in schema:
        return [f"`{value}`" for value in schema.get("enum", [schema.get("const")])]
    kind = schema.get("type")
    if kind == "string" and "examples" in schema:
        return [f"text such as `{schema['examples'][0]}`"]
    if kind == "array":
        items = schema["items"].get("$ref", "").rpartition("/")[2]
        words = "list of {source, weight}" if items == "WeightedSource" else "list of texts"
        return [words + (" (at least one)" if schema.get("minItems") else "")]
    if kind in ("integer", "number"):
        return [kind + _bounds(schema)]
    return {"boolean": ["true or false"], "null": [], "object": ["mapping"]}.get(
        str(kind), ["path" if schema.get("format") == "path" else "text"]
    )


def _bounds(schema: dict[str, Any]) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    parts = [
        f"{word} {schema[key]:g}" if schema[key] < 1e6 else f"{word} {schema[key]}"
        for key, word in words.items()
        if key in schema
    ]
    return f" {', '.join(parts)}" if parts else ""


def _default(value: object) -> str:
    if value is PydanticUndefined:
        return "none, required"
    if value is None:
        return "none"
    if value == ():
        return "empty list"
    text = value if isinstance(value, str) else str(value) if isinstance(value, Path) else json.dumps(value)
    return f"`{text}`"


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{page}\n")
