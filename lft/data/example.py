"""A row as it is trained: turns of text, whatever columns it came from."""

from typing import Any, Literal, NamedTuple

Row = dict[str, Any]
"""A row as it is read: values by column."""


Style = Literal["chat", "pair", "text"]
"""How examples are written. chat: the chat template. pair: prompt, line feed, answer. text: the text alone."""


class Example(NamedTuple):
    """The turns of one row, in order. A plain text is one turn of the role "text"."""

    roles: tuple[str, ...]
    """For example ("system", "user", "assistant")."""

    contents: tuple[str, ...]
    """The text of each turn."""

    completion_from: int
    """Number of the first turn of the completion; the turns before it are the prompt. 0 for plain text."""

    messages: list[dict[str, Any]] | None = None
    """The whole messages, where roles and contents do not say all (tool calls, content parts, names)."""

    tools: list[Any] | None = None
    """Tools the conversation may call, for the template."""


class BadRow(ValueError):  # noqa: N818  a fact about the data, raised and collected
    """Why a row cannot be used, in words that follow its place: "answer is null; text is expected"."""
