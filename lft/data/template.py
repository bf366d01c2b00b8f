"""A chat template at work: the text of a conversation, and where in that text each answer stands.

Templates mark answers rarely, so answers are found by rendering: what stands before an answer is what the template writes to
ask for it, what stands behind is what follows a mark put in its place.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import jinja2

from lft.data.example import BadRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]

TODAY = datetime(2024, 7, 26)
"""The day in templates that ask for one, or the tokens would change at midnight, between ranks and between training and
generation. It is the one Llama 3.1's template itself falls back on where there is no clock."""

MARK = re.compile("\ue000([0-9]+)\ue001")
"""Stands for a content. Of private characters, which no template treats specially."""

_CLOCK = re.compile(r"""strftime_now\s*\(\s*(?:'([^']*)'|"([^"]*)")\s*\)""")


class Span(NamedTuple):
    """Where in the text an answer and its end of turn stand."""

    turn: int
    start: int
    stop: int


class Conversation(NamedTuple):
    """A rendered conversation."""

    text: str
    answers: tuple[Span, ...]


def mark(number: int) -> str:
    """The text that stands for content `number`."""
    return f"\ue000{number}\ue001"


def stop_clock(source: str) -> str:
    """The template with TODAY in place of today."""
    stopped = _CLOCK.sub(lambda call: repr(TODAY.strftime(call[1] or call[2] or "")), source)
    if not re.search(r"strftime_now\s*\(", stopped):
        return stopped
    # a format that is no constant: a macro hides the function, at the price of one format for all
    return "{%- macro strftime_now(format) -%}" + TODAY.strftime("%d %b %Y") + "{%- endmacro -%}" + stopped


class ChatTemplate:
    """The tokenizer's chat template, or `source` in its place."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", source: str | None = None) -> None:
        self._tokenizer, self._source = tokenizer, source
        self._stopped: dict[str, str] = {}
        self.end = str(tokenizer.eos_token or "")
        added = tokenizer.added_tokens_decoder.values()
        self.special = tuple({*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)} - {""})

    def source(self, tools: Sequence[Any] | None = None) -> str:
        """The Jinja text: for conversations with tools some tokenizers have another one."""
        own = self._source or self._tokenizer.get_chat_template(None, list(tools) if tools else None)
        return self._stopped.setdefault(own, stop_clock(own))

    def render(self, messages: Sequence[Message], tools: list[Any] | None = None, *, ask: bool = False) -> str:
        """The text of a conversation; with `ask`, up to where the next answer begins.

        Raises BadRow with the template's own words where it refuses the conversation.
        """
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=tools,
                    chat_template=self.source(tools),
                    tokenize=False,
                    add_generation_prompt=ask,
                )
            )
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise BadRow(f"the chat template refuses the conversation: {error or type(error).__name__}") from None

    def locate(self, messages: Sequence[Message], tools: list[Any] | None = None) -> Conversation:
        """The text of a conversation with all its answers found.

        The span of an answer begins where the model begins to write when it is asked, and ends with the end of the turn. If
        the template ends the last turn with nothing, the end token is added; white space behind it is left out. Raises BadRow.
        """
        text = self.render(messages, tools)
        spans: list[Span] = []
        end = ""
        for turn, message in enumerate(messages):
            if message.get("role") == "assistant":
                span, end = self._locate(text, messages, turn, tools)
                if spans and span.start < spans[-1].stop:
                    raise _unseen(turn)
                spans.append(span)
        if spans and spans[-1].turn == len(messages) - 1:
            last = spans[-1]
            behind = text[last.stop :]
            text = text[: last.stop] + (behind if behind.strip() else "")
            if not end and not text.endswith(self.end):
                text = text[: last.stop] + self.end + text[last.stop :]
                spans[-1] = last._replace(stop=last.stop + len(self.end))
        return Conversation(text, tuple(spans))

    def _locate(self, text: str, messages: Sequence[Message], turn: int, tools: list[Any] | None) -> tuple[Span, str]:
        """One answer, and what ends its turn."""
        before, content = self._ask(messages[:turn], tools), messages[turn].get("content")
        start = len(before) if before is not None and text.startswith(before) else None
        if isinstance(content, str) and content:
            stand_in = next(mark(number) for number in range(len(text) + 1) if mark(number) not in text)
            marked = [*messages[:turn], {**messages[turn], "content": stand_in}]
            head, found, tail = self.render([*marked, *messages[turn + 1 :]], tools).partition(stand_in)
            alone_head, _, alone_tail = self.render(marked, tools).partition(stand_in)
            stop = len(text) - len(tail)
            if start is None and text.startswith(head):  # earlier turns look otherwise in this whole than they did then
                led = before is not None and alone_head.startswith(before) and head.endswith(alone_head[len(before) :])
                start = len(head) - (len(alone_head) - len(before) if led and before is not None else 0)
            if found and stand_in not in tail and text.endswith(tail) and start is not None:
                shown = text[min(start, len(head)) if text.startswith(head) else start : stop]
                if _shows(shown, content):
                    end = self._end(text, stop, alone_tail.rstrip())
                    return Span(turn, start, stop + len(end)), end
        elif start is not None:  # no text, calls of tools, parts of several kinds
            through = self.render(messages[: turn + 1], tools).rstrip()
            if text.startswith(through) and (len(through) > start or not content):
                end = next((token for token in self.special if through.endswith(token)), "")
                return Span(turn, start, max(start, len(through))), end
        raise _unseen(turn)

    def _ask(self, messages: Sequence[Message], tools: list[Any] | None) -> str | None:
        """What the template writes to ask for the next answer; None where it cannot be asked."""
        try:
            return self.render(messages, tools, ask=True) if messages else None
        except BadRow:  # for example a template that wants the user to speak last
            return None

    def _end(self, text: str, stop: int, ended: str) -> str:
        """What ends the turn whose content ends at `stop`: all of `ended`, or else a special token that follows directly."""
        if text.startswith(ended, stop):
            return ended
        return next((token for token in self.special if text.startswith(token, stop)), "")


def _shows(shown: str, content: str) -> bool:
    """Whether a content is what the template made of it, but for white space and for parts left out, as thoughts are."""
    seen, whole = "".join(shown.split()), "".join(content.split())
    return whole in seen or (bool(seen) and seen in whole)


def _unseen(turn: int) -> BadRow:
    return BadRow(f"the chat template does not show where turn {turn + 1} is answered")
