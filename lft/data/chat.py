"""Turning a prompt and an answer into the two texts that are tokenized, the same for training and generation."""

from typing import Literal

from transformers import PreTrainedTokenizerBase

Style = Literal["chat", "pair", "text"]
"""chat: the tokenizer's chat template. pair: prompt, line feed, answer. text: the text alone."""

_EXPLANATIONS: dict[Style, str] = {
    "chat": "the tokenizer's chat template, prompt as user and answer as assistant",
    "pair": "prompt, line feed, answer",
    "text": "the text as it is",
}


def choose_style(tokenizer: PreTrainedTokenizerBase, *, has_answers: bool) -> Style:
    """Chat where the rows have answers and the tokenizer a template."""
    if not has_answers:
        return "text"
    return "chat" if tokenizer.chat_template else "pair"


def describe_style(style: Style) -> str:
    """For people."""
    return _EXPLANATIONS[style]


def render_prompt(tokenizer: PreTrainedTokenizerBase, style: Style, prompt: str) -> str:
    """All that stands before the answer."""
    if style == "text":
        return prompt
    if style == "pair":
        return f"{prompt}\n"
    turns = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


def render_row(tokenizer: PreTrainedTokenizerBase, style: Style, prompt: str, answer: str) -> tuple[str, str]:
    """What stands before the answer, and the answer up to and with its end token."""
    before, end = render_prompt(tokenizer, style, prompt), str(tokenizer.eos_token or "")
    if style != "chat":
        return before, answer + end
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    whole = str(tokenizer.apply_chat_template(turns, tokenize=False))
    if not whole.startswith(before):  # a template that treats the last turn specially, as thinking models' do
        return before, answer + end
    # what follows the end of the turn is the template's, not the model's to write
    return before, whole[len(before) :].rstrip() or answer + end


def adds_special_tokens(style: Style) -> bool:
    """Whether the tokenizer should put its own begin token before the text; a chat template has done so already."""
    return style != "chat"
