"""Recognising what the rows of a source are, by their columns: conversations, prompts with answers, or plain text."""

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from lft.core.errors import DataError
from lft.core.settings import DataSettings
from lft.data.chat_format import KEYS, ChatFormat, ConversationFormat, message_form
from lft.data.column_format import ColumnFormat, TemplateFormat, template_pieces
from lft.data.example import Example, Row

if TYPE_CHECKING:
    from datasets import Dataset

COMMON_NAMES = (
    *("text", "content", "input", "output", "prompt", "response", "instruction", "question", "answer", "completion"),
)
ASKING = ("instruction", "prompt", "question", "input")
ANSWERING = ("output", "response", "completion", "answer")
CONVERSATIONS = ("messages", "conversations")
NAME_THEM = "name the columns to use, for example: --set data.text_columns=[question,answer]"


class RowFormat(Protocol):
    """How a row is read. A frozen dataclass, whose repr says all that decides what `example` makes of a row."""

    @property
    def columns(self) -> list[str]:
        """The columns used, those that ask first."""

    def describe(self) -> str:
        """For people."""

    def example(self, row: Row) -> Example | None:
        """The turns of a row; None where there is nothing to train. Raises BadRow."""


def recognise(head: Sequence[Row], data: DataSettings) -> RowFormat:
    """The format of rows that begin like `head`.

    Templates and columns named in the settings come first; then conversations, then columns that ask and answer, then
    plain text. Raises DataError, with the columns there are and what to set, where none or more than one thing can be meant.
    """
    kinds = _kinds(head)
    if data.prompt_template is not None or data.completion_template is not None:
        return _templates(data, kinds)
    if data.text_columns:
        return _named(list(dict.fromkeys(data.text_columns)), kinds)
    return _conversation(kinds, None) or _columns(kinds)


def text_columns(rows: "Dataset") -> list[str]:
    """Text columns with a common name, in the order of the data set; if there are none, all text columns."""
    texts = [
        name
        for name, feature in rows.features.items()
        if getattr(feature, "dtype", "") in ("string", "large_string", "string_view")
    ]
    return [name for name in texts if name.lower() in COMMON_NAMES] or texts


def unused_columns(head: Iterable[Row], row_format: RowFormat) -> list[str]:
    """The columns of the rows that the format leaves out, for people to notice."""
    used = set(row_format.columns)
    return [name for name in dict.fromkeys(name for row in head for name in row) if name not in used]


def _templates(data: DataSettings, kinds: dict[str, str]) -> RowFormat:
    if data.text_columns:
        raise DataError("data.text_columns and templates are both given; the templates name their columns themselves")
    if data.completion_template is None:
        raise DataError(
            "data.prompt_template is given, and data.completion_template is not",
            next_step="add what is to be learned, for example: --set \"data.completion_template='{answer}'\"",
        )
    pieces = {}
    for setting in ("prompt_template", "completion_template"):
        template = getattr(data, setting)
        if template is not None:
            try:
                pieces[setting] = template_pieces(template)
            except ValueError as error:
                next_step = "write a brace that is no column twice: {{ or }}"
                raise DataError(f"data.{setting} is no template: {error}", next_step=next_step) from None
            _check_columns([name for _, name in pieces[setting] if name is not None], kinds, f"data.{setting}: ")
    return TemplateFormat(data.prompt_template, data.completion_template)


def _named(names: list[str], kinds: dict[str, str]) -> RowFormat:
    _check_columns(names, kinds)
    conversation = _conversation({name: kinds[name] for name in names}, names)
    if conversation:
        return conversation
    asking = [name for want in ASKING for name in names if name.lower() == want]
    answering = [name for name in names if name.lower() in ANSWERING]
    if asking and len(answering) == 1 and len(asking) + 1 == len(names):
        return ColumnFormat(tuple(asking), answering[0])
    return ColumnFormat(tuple(names), None)


def _conversation(kinds: dict[str, str], named: list[str] | None) -> RowFormat | None:
    """Where a column holds messages, by its name or because it was named; or a prompt and a completion both do."""
    by_name = {name.lower(): name for name in reversed(kinds)}
    prompt, completion = by_name.get("prompt", ""), by_name.get("completion", "")
    forms = {name: kind for name, kind in kinds.items() if kind in ("OpenAI", "ShareGPT")}
    tools, system = by_name.get("tools"), by_name.get("system")
    if prompt in forms and completion in forms:
        return ConversationFormat(prompt, completion, tools)
    found = [name for name in forms if named or name.lower() in CONVERSATIONS] or list(forms)[: len(forms) == 1]
    unread = [name for name in kinds if name.lower() in CONVERSATIONS and kinds[name] not in ("null", *forms.values())]
    if not found and unread and not named:
        raise DataError(
            f"column {unread[0]} should hold a conversation, but holds {kinds[unread[0]]}; a list of messages is expected",
            next_step='write it as [{"role": ..., "content": ...}, ...], or ' + NAME_THEM,
        )
    if len(found) > 1:
        raise DataError(
            f"columns {' and '.join(found)} both hold conversations",
            next_step=f"name the one to use: --set data.text_columns=[{found[0]}]",
        )
    if not found:
        return None
    return ChatFormat(
        found[0], forms[found[0]], system if system and kinds[system] in ("text", "null") else None, tools
    )


def _columns(kinds: dict[str, str]) -> RowFormat:
    texts = [name for name, kind in kinds.items() if kind == "text" or (kind == "number" and _is_common(name))]
    asking = [name for want in ASKING for name in texts if name.lower() == want]
    answering = [name for name in texts if name.lower() in ANSWERING]
    plain = [name for name in texts if name.lower() in ("text", "content")]
    if asking and len(answering) == 1:
        # an empty or missing `input` is common; it may also be null in all rows looked at
        optional = [name for name, kind in kinds.items() if name.lower() == "input" and kind == "null"]
        system = next((name for name in texts if name.lower() in ("system", "system_prompt")), None)
        return ColumnFormat(tuple(asking + optional), answering[0], system)
    if asking and len(answering) > 1:
        raise _unclear(f"columns {', '.join(answering)} could all answer {asking[0]}", kinds)
    unread = [name for name, kind in kinds.items() if name.lower() in (*ASKING, *ANSWERING) and name not in texts]
    unread = [name for name in unread if kinds[name] != "null"]
    if unread and (asking or answering):
        part = "ask" if unread[0].lower() in ASKING else f"answer {asking[0]}" if asking else "answer"
        raise DataError(
            f"column {unread[0]} should {part}, but holds {kinds[unread[0]]}; text is expected",
            next_step="make it text, or " + NAME_THEM,
        )
    if asking and len(texts) > len(asking) and not plain:
        raise _unclear(f"no column answers {asking[0]}", kinds)
    chosen = plain or [name for name in texts if _is_common(name)] or texts
    if not chosen:
        raise _unclear("no column holds text", kinds)
    return ColumnFormat(tuple(chosen), None)


def _is_common(name: str) -> bool:
    return name.lower() in COMMON_NAMES


def _unclear(what: str, kinds: dict[str, str]) -> DataError:
    shown = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
    return DataError(f"{what}; the columns are {shown}", next_step=NAME_THEM)


def _check_columns(names: Sequence[str], kinds: dict[str, str], setting: str = "") -> None:
    missing = [name for name in names if name not in kinds]
    if missing:
        near = difflib.get_close_matches(missing[0], kinds, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else ""
        what = f"{setting}there is no column {', '.join(missing)}; the columns are {', '.join(kinds)}"
        raise DataError(what, next_step=hint)


def _kinds(head: Iterable[Row]) -> dict[str, str]:
    """What each column holds: its first value that is not null says so, but a text or a conversation anywhere weighs more."""
    kinds: dict[str, str] = {}
    for row in head:
        for name, value in row.items():
            known = kinds.setdefault(name, "null")
            if known in ("null", "number", "list"):
                kind = _kind(value)
                if known == "null" or kind in ("text", *KEYS):
                    kinds[name] = kind
    return kinds


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return "text"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list):
        return message_form(value) or "list"
    return "object" if isinstance(value, dict) else type(value).__name__
