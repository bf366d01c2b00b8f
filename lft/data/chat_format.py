"""Rows that hold conversations: lists of messages in OpenAI form (role, content) or ShareGPT form (from, value)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lft.data.column_format import optional_text_in
from lft.data.example import BadRow, Example, Row

KEYS = {"OpenAI": ("role", "content"), "ShareGPT": ("from", "value")}
ROLES = {name: name for name in ("system", "developer", "user", "assistant", "tool", "function")} | {
    **dict.fromkeys(("human",), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "model", "bot", "function_call"), "assistant"),
    **dict.fromkeys(("observation", "function_response"), "tool"),
}
"""What the roles of published data sets are to a chat template."""
SPEAKING = ("tool_calls", "reasoning_content")
"""What makes an assistant's turn more than empty, besides its content."""

Turns = tuple[list[str], list[str], list[dict[str, Any]] | None]
"""Roles, contents and, where these do not say all, the whole messages in OpenAI form."""


@dataclass(frozen=True)
class ChatFormat:
    """One column of messages; perhaps a system text and tools in columns of their own."""

    column: str
    form: str
    system_column: str | None = None
    tools_column: str | None = None

    @property
    def columns(self) -> list[str]:
        """As RowFormat.columns."""
        return [name for name in (self.system_column, self.tools_column, self.column) if name is not None]

    def describe(self) -> str:
        """As RowFormat.describe."""
        beside = [name for name in (self.system_column, self.tools_column) if name is not None]
        return f"chat in {self.column} ({self.form} form)" + (f", with {' and '.join(beside)}" if beside else "")

    def example(self, row: Row) -> Example | None:
        """As RowFormat.example."""
        roles, contents, whole = _turns(row, self.column, self.form)
        if self.system_column is not None:
            system = optional_text_in(row, self.system_column)
            if system and roles[:1] != ["system"]:
                roles.insert(0, "system")
                contents.insert(0, system)
                whole = whole and [{"role": "system", "content": system}, *whole]
            elif system and contents[0].strip() != system:
                raise BadRow(f"has two system texts: {self.system_column}, and the first of {self.column}")
        try:
            last = len(roles) - 1 - roles[::-1].index("assistant")
        except ValueError:
            raise BadRow(f"{self.column} has no turn of the assistant") from None
        if not contents[last].strip() and not _anything_said(roles, contents, whole, 0):
            return None
        tools = _tools(row, self.tools_column) if self.tools_column is not None else None
        return Example(tuple(roles), tuple(contents), last, whole, tools)


@dataclass(frozen=True)
class ConversationFormat:
    """Two columns of messages, one that asks and one that answers."""

    prompt_column: str
    completion_column: str
    tools_column: str | None = None

    @property
    def columns(self) -> list[str]:
        """As RowFormat.columns."""
        return [name for name in (self.tools_column, self.prompt_column, self.completion_column) if name is not None]

    def describe(self) -> str:
        """As RowFormat.describe."""
        return f"chat in {self.prompt_column} -> {self.completion_column} (OpenAI or ShareGPT form)"

    def example(self, row: Row) -> Example | None:
        """As RowFormat.example."""
        roles, contents, whole = _turns(row, self.prompt_column, None)
        first = len(roles)
        more_roles, more_contents, more_whole = _turns(row, self.completion_column, None)
        if whole is not None or more_whole is not None:
            whole = (whole or _messages(roles, contents)) + (more_whole or _messages(more_roles, more_contents))
        roles, contents = roles + more_roles, contents + more_contents
        if "assistant" not in more_roles:
            raise BadRow(f"{self.completion_column} has no turn of the assistant")
        if not _anything_said(roles, contents, whole, first):
            return None
        tools = _tools(row, self.tools_column) if self.tools_column is not None else None
        return Example(tuple(roles), tuple(contents), first, whole, tools)


def message_form(value: list[Any]) -> str | None:
    """OpenAI or ShareGPT, if a list begins with a message of that form."""
    first = value[0] if value else None
    return next((form for form, keys in KEYS.items() if isinstance(first, dict) and first.keys() >= set(keys)), None)


def _turns(row: Row, column: str, form: str | None) -> Turns:
    messages = row.get(column)
    if type(messages) is not list or not messages:
        kind = (
            "missing" if column not in row else "null" if messages is None else "empty" if messages == [] else "no list"
        )
        raise BadRow(f"{column} is {kind}; a list of messages is expected")
    role_key, content_key = KEYS[form or message_form(messages) or "OpenAI"]
    roles: list[str] = []
    contents: list[str] = []
    is_plain = True
    for message in messages:
        try:
            role = ROLES[message[role_key].lower()]
            content = message.get(content_key)
        except (KeyError, TypeError, AttributeError):
            raise BadRow(_what_is_wrong(column, len(roles) + 1, message, role_key, content_key)) from None
        is_plain = (
            is_plain and type(content) is str and (len(message) == 2 or _says_no_more(message, role_key, content_key))
        )
        roles.append(role)
        contents.append(content)
    if is_plain:
        return roles, contents, None
    whole = [
        _full(message, role, content_key, f"{column} turn {number}")
        for number, (message, role) in enumerate(zip(messages, roles, strict=True), start=1)
    ]
    return roles, [_text_of(message["content"]) for message in whole], whole


def _says_no_more(message: Mapping[str, Any], role_key: str, content_key: str) -> bool:
    """Tables give every message all keys, null where it has none."""
    return all(value is None for key, value in message.items() if key not in (role_key, content_key))


def _full(message: Mapping[str, Any], role: str, content_key: str, turn: str) -> dict[str, Any]:
    content = message.get(content_key)
    said = any(message.get(key) for key in SPEAKING)
    if type(content) not in (str, list) and not (content is None and said):
        if content_key not in message:
            raise BadRow(f"{turn} has no {content_key}")
        kind = "null" if content is None else type(content).__name__
        raise BadRow(f"{turn}: {content_key} is {kind}; text is expected")
    if type(content) is list and not all(type(part) is dict for part in content):
        raise BadRow(f"{turn}: {content_key} is a list of something else than content parts")
    more = {
        key: value for key, value in message.items() if value is not None and key not in ("role", "from", content_key)
    }
    return {"role": role, "content": "" if content is None else content} | more


def _text_of(content: str | list[dict[str, Any]]) -> str:
    """The texts of content parts, one after the other."""
    return content if type(content) is str else "".join(str(part.get("text") or "") for part in content)  # type: ignore[union-attr]


def _messages(roles: list[str], contents: list[str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]


def _anything_said(roles: list[str], contents: list[str], whole: list[dict[str, Any]] | None, first: int) -> bool:
    """Whether any turn of the assistant from `first` on holds something to learn."""
    return any(
        roles[turn] == "assistant"
        and (contents[turn].strip() or (whole and any(whole[turn].get(key) for key in SPEAKING)))
        for turn in range(first, len(roles))
    )


def _tools(row: Row, column: str) -> list[Any] | None:
    """A list, also where it is written as a JSON text."""
    tools = row.get(column)
    if type(tools) is str and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise BadRow(f"{column} is not JSON: {error}") from None
    if not tools:
        return None
    if type(tools) is not list:
        raise BadRow(f"{column} is no list")
    return tools


def _what_is_wrong(column: str, number: int, message: Any, role_key: str, content_key: str) -> str:
    turn = f"{column} turn {number}"
    if not isinstance(message, Mapping):
        return f"{turn} is no message; an object with {role_key} and {content_key} is expected"
    if role_key in message and not (isinstance(message[role_key], str) and message[role_key].lower() in ROLES):
        return f"{turn} has the role {json.dumps(message[role_key], default=str)}; known are {', '.join(ROLES)}"
    missing = [key for key in (role_key, content_key) if key not in message]
    return f"{turn} has no {' and no '.join(missing)}"
