"""How an example is written: pieces of text, each trained or not, the same for training and for generation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from lft.data.example import BadRow, Example, Style
from lft.data.shape import Odd, Shape, Slots, learn_slots
from lft.data.template import ChatTemplate, mark

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LossOn = Literal["auto", "completion", "assistant", "all"]

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] | trim }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For conversations of several turns and a tokenizer that has no template."""

MOST_SHAPES = 256
"""Shapes kept; a shape is some kilobytes, and conversations of ever other lengths must not fill the memory."""

_EXPLANATIONS: dict[Style, str] = {
    "chat": "the tokenizer's chat template",
    "pair": "prompt, line feed, answer",
    "text": "the text as it is",
}


class Piece(NamedTuple):
    """A part of a row's text that is tokenized on its own."""

    text: str
    trained: bool


class Written(NamedTuple):
    """A row's text in pieces, and the number of the one that the last answer begins with; None without an answer."""

    pieces: tuple[Piece, ...]
    answer: int | None


class Choice(NamedTuple):
    """How a data set is written. `chat_template`, where not None, is to be set on the tokenizer, which is saved with it."""

    style: Style
    chat_template: str | None
    words: str


def choose_writing(
    tokenizer: "PreTrainedTokenizerBase", examples: Iterable[Example], chat_template: str | None = None
) -> Choice:
    """The style for data that look like `examples`, with `chat_template` (Jinja) in place of the tokenizer's own."""
    shapes = {example.roles for example in examples}
    if shapes <= {("text",)}:
        return Choice("text", None, _EXPLANATIONS["text"])
    if chat_template:
        return Choice("chat", chat_template, "the chat template given as data.chat_template")
    if tokenizer.chat_template:
        return Choice("chat", None, _EXPLANATIONS["chat"])
    if shapes <= {("text",), ("user", "assistant")}:
        return Choice("pair", None, _EXPLANATIONS["pair"])
    return Choice("chat", PLAIN_TEMPLATE, "a plain chat template (User: ... Assistant: ...), as the tokenizer has none")


def usual_style(tokenizer: "PreTrainedTokenizerBase") -> Style:
    """How a prompt is written where no data says otherwise."""
    return "chat" if tokenizer.chat_template else "pair"


def adds_special_tokens(style: Style) -> bool:
    """Whether the tokenizer's own begin token belongs before the text; a chat template has written it already."""
    return style != "chat"


def render_prompt(tokenizer: "PreTrainedTokenizerBase", style: Style, prompt: str) -> str:
    """All that stands before the answer to `prompt`."""
    if style == "text":
        return prompt
    if style == "pair":
        return f"{prompt}\n"
    return ChatTemplate(tokenizer).render([{"role": "user", "content": prompt}], ask=True)


class Writing:
    """Writes examples in one style. Shapes of conversations are learned once and filled in; see shape.py."""

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", style: Style, loss_on: LossOn, chat_template: str | None = None
    ) -> None:
        self._style, self._loss_on = style, loss_on
        self._end = str(tokenizer.eos_token or "")
        self._template = ChatTemplate(tokenizer, chat_template) if style == "chat" else None
        begin_and_end = [token for token in (tokenizer.bos_token, self._end) if token]
        self._odd = Odd(self._template.source() if self._template else "", begin_and_end)
        self._shapes: dict[tuple[tuple[str, ...], int], Shape | None] = {}

    def write(self, example: Example) -> Written:
        """The pieces of an example by the template itself, however odd its texts. Raises BadRow."""
        if example.roles == ("text",):
            text = example.contents[0]
            return Written((Piece(text if text.endswith(self._end) else text + self._end, True),), None)
        if self._template is None:
            return self._write_pair(example)
        messages = example.messages or [
            {"role": role, "content": content} for role, content in zip(example.roles, example.contents, strict=True)
        ]
        text, answers = self._template.locate(messages, example.tools)
        if example.messages or example.tools:
            _check_calls(text, messages, example.tools)
        if not answers:
            return Written((Piece(text, self._loss_on == "all"),), None)
        since = example.completion_from if self._loss_on == "completion" else 0
        pieces, done = [], 0
        for span in answers:
            # OpenAI's weight of 0 leaves an answer out
            is_trained = span.turn >= since and messages[span.turn].get("weight", 1) != 0
            if is_trained or span is answers[-1]:
                pieces += [Piece(text[done : span.start], False), Piece(text[span.start : span.stop], is_trained)]
                done = span.stop
        answer = len(pieces) - 1
        pieces.append(Piece(text[done:], False))
        if self._loss_on == "all":
            pieces = [Piece(piece.text, True) for piece in pieces]
        if not pieces[0].text:  # the answer comes first
            pieces, answer = pieces[1:], answer - 1
        return Written(tuple(pieces if pieces[-1].text else pieces[:-1]), answer)

    def is_empty(self, example: Example) -> bool:
        """Whether there is nothing to train in an example: no text, or no answer."""
        if example.messages:
            return False
        if example.roles == ("text",) or self._loss_on == "all":
            return not any(content and not content.isspace() for content in example.contents)
        since = example.completion_from if self._loss_on == "completion" else 0
        turns = zip(example.roles[since:], example.contents[since:], strict=True)
        return not any(role == "assistant" and content and not content.isspace() for role, content in turns)

    def shape(self, example: Example) -> Shape | None:
        """What the example can be filled into, or None for one that only `write` can write. The same for each call."""
        if example.messages is not None or example.tools is not None or self._odd.any(example.contents):
            return None
        key = (example.roles, example.completion_from if self._loss_on == "completion" else 0)
        if key not in self._shapes:
            if len(self._shapes) >= MOST_SHAPES:
                self._shapes.clear()
            self._shapes[key] = self._learn(example)
        return self._shapes[key]

    def _learn(self, example: Example) -> Shape | None:
        """The shape of all examples with the roles of this one."""

        def pieces(contents: Sequence[str]) -> tuple[Piece, ...]:
            return self.write(example._replace(contents=tuple(contents))).pieces

        marks = [mark(number) for number in range(len(example.roles))]
        try:
            written = self.write(example._replace(contents=tuple(marks)))
            slots: Slots | None = learn_slots(lambda contents: [piece.text for piece in pieces(contents)], marks)
        except BadRow:
            return None
        return slots and Shape(slots, tuple(piece.trained for piece in written.pieces), written.answer)

    def _write_pair(self, example: Example) -> Written:
        if example.roles[-1] != "assistant" or "assistant" in example.roles[:-1]:
            raise BadRow("is a conversation of several turns, but the other rows are prompt and answer")
        prompt, answer = "\n".join(example.contents[:-1]), example.contents[-1]
        ended = answer if answer.endswith(self._end) else answer + self._end
        return Written((Piece(f"{prompt}\n", self._loss_on == "all"), Piece(ended, True)), 1)


def _check_calls(text: str, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None) -> None:
    """Raise BadRow where the template leaves out tools or their calls, which would teach the model to say nothing."""
    for turn, message in enumerate(messages, start=1):
        for call in message.get("tool_calls") or ():
            name = _tool_name(call)
            if name and name not in text:
                raise BadRow(f"the chat template leaves out the tool call of turn {turn}, {name}")
    for tool in tools or ():
        name = _tool_name(tool)
        if name and name not in text:
            raise BadRow(f"the chat template leaves out the tool {name}")


def _tool_name(tool: Any) -> str:
    inner = tool.get("function", tool) if isinstance(tool, dict) else {}
    return str(inner.get("name") or "") if isinstance(inner, dict) else ""
