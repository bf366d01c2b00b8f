"""Writes the tables of docs/run-file.md from the settings: `python -m tests.run_file_page`.

The table of a section is the first one below its heading; a section without a heading gets one. All else on the page is
written by hand.
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

PAGE = Path(__file__).parent.parent / "docs" / "run-file.md"
HEAD = ["| key | type | default | meaning |", "|---|---|---|---|"]
LAST = "output_dir"


def page_with_tables(page: str) -> str:
    """The page with every table as the settings have it now. Does not touch what stands around the tables."""
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
    before, heading, after = page.partition(f"\n## {name}\n")
    return before + heading + re.sub(r"(?m)(^\|.*\n)+", lambda _: table, after, count=1)


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
    PAGE.write_text(page_with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
