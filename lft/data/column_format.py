"""Rows whose columns are texts: those that ask and one that answers, plain text, or what templates make of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Any

from lft.data.example import BadRow, Example, Row

PAIR, SYSTEM_PAIR, TEXT = ("user", "assistant"), ("system", "user", "assistant"), ("text",)
OPTIONAL = ("input", "system", "system_prompt")


@dataclass(frozen=True)
class ColumnFormat:
    """`prompt_columns` ask, `answer_column` answers; without one all is text. Stripped, joined by line feeds.

    Only `input`, beside another column that asks, and the system text may be missing or null.
    """

    prompt_columns: tuple[str, ...]
    answer_column: str | None
    system_column: str | None = None

    @property
    def columns(self) -> list[str]:
        """As RowFormat.columns."""
        return [name for name in (self.system_column, *self.prompt_columns, self.answer_column) if name is not None]

    def describe(self) -> str:
        """As RowFormat.describe."""
        prompt = "\\n".join(f"{{{name}}}" for name in self.prompt_columns)
        system = f"system {{{self.system_column}}}, " if self.system_column else ""
        return f"{system}{prompt} -> {{{self.answer_column}}}" if self.answer_column else prompt

    def example(self, row: Row) -> Example | None:
        """As RowFormat.example."""
        asking = self.prompt_columns
        prompt = text_in(row, asking[0]) if len(asking) == 1 else self._joined(row)
        if self.answer_column is None:
            return Example(TEXT, (prompt,), 0) if prompt else None
        answer = text_in(row, self.answer_column)
        if not answer:
            return None
        if self.system_column is not None:
            system = optional_text_in(row, self.system_column)
            if system:
                return Example(SYSTEM_PAIR, (system, prompt, answer), 2)
        return Example(PAIR, (prompt, answer), 1)

    def _joined(self, row: Row) -> str:
        read = [optional_text_in if name.lower() in OPTIONAL else text_in for name in self.prompt_columns]
        texts = [text(row, name) for text, name in zip(read, self.prompt_columns, strict=True)]
        return "\n".join(text for text in texts if text)


@dataclass(frozen=True)
class TemplateFormat:
    """Prompt and completion, or plain text, written with the columns in braces."""

    prompt_template: str | None
    completion_template: str

    @property
    def columns(self) -> list[str]:
        """As RowFormat.columns."""
        return list(dict.fromkeys(name for _, name in [*self._prompt, *self._completion] if name is not None))

    def describe(self) -> str:
        """As RowFormat.describe."""
        shown = [
            text.replace("\n", "\\n") for text in (self.prompt_template, self.completion_template) if text is not None
        ]
        return " -> ".join(shown)

    def example(self, row: Row) -> Example | None:
        """As RowFormat.example."""
        completion = _filled(self._completion, row)
        if not completion:
            return None
        if self.prompt_template is None:
            return Example(TEXT, (completion,), 0)
        return Example(PAIR, (_filled(self._prompt, row), completion), 1)

    @cached_property
    def _prompt(self) -> list[tuple[str, str | None]]:
        return template_pieces(self.prompt_template or "")

    @cached_property
    def _completion(self) -> list[tuple[str, str | None]]:
        return template_pieces(self.completion_template)


def template_pieces(template: str) -> list[tuple[str, str | None]]:
    """Constant texts, each with the column that follows it, if one does. Raises ValueError for a brace that stands alone."""
    pieces = []
    for constant, name, form, conversion in Formatter().parse(template):
        if name == "" or form or conversion:
            raise ValueError("a brace holds something else than the name of a column")
        pieces.append((constant, name))
    return pieces


def text_in(row: Row, name: str) -> str:
    """The text in a column, stripped; a number as it was written. Raises BadRow for anything else."""
    try:
        value = row[name]
    except KeyError:
        raise BadRow(f"{name} is missing; text is expected") from None
    return value.strip() if type(value) is str else _text_of(value, name)


def optional_text_in(row: Row, name: str) -> str:
    """As text_in, and empty where there is none."""
    value = row.get(name)
    return "" if value is None else value.strip() if type(value) is str else _text_of(value, name)


def _text_of(value: Any, name: str) -> str:
    if isinstance(value, int | float):
        return json.dumps(value)
    kinds = {"NoneType": "null", "dict": "an object", "list": "a list"}
    kind = type(value).__name__
    raise BadRow(f"{name} is {kinds.get(kind, kind)}; text is expected")


def _filled(pieces: Sequence[tuple[str, str | None]], row: Row) -> str:
    return "".join(text + (text_in(row, name) if name is not None else "") for text, name in pieces).strip()
