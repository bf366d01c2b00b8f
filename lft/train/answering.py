"""Answers to conversations, one streamed or many in batches, greedy or sampled, written as the data was trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, TextStreamer, set_seed

from lft.core.errors import SettingsError
from lft.data.example import BadRow
from lft.data.template import ChatTemplate
from lft.data.token_block import begin_tokens
from lft.train.generation import greedy, length_batches, prompt_tokens, room
from lft.train.memory import translating_out_of_memory
from lft.train.tuned import Tuned

Messages = list[dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is chosen: the likeliest at temperature 0, else drawn from the `top_p` likeliest."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class _Pieces(TextStreamer):
    """Hands over the answer's text as it comes; what stands before it is left out."""

    def __init__(self, tokenizer: Any, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if text:
            self._write(text)


def conversation_tokens(tuned: Tuned, messages: Messages) -> list[int]:
    """All that the model meets before it answers. Raises SettingsError where the template refuses the conversation.

    Without a chat template only the last message can be told.
    """
    if tuned.style != "chat":
        if any(message["role"] == "system" for message in messages):
            raise SettingsError(["this model has no chat template, and so no system prompt; leave it out"])
        return prompt_tokens(tuned.tokenizer, tuned.style, [messages[-1]["content"]])[0]
    try:
        text = ChatTemplate(tuned.tokenizer).render(messages, ask=True)
    except BadRow as error:
        raise SettingsError([str(error)]) from None
    ids: list[int] = tuned.tokenizer(text, add_special_tokens=False).input_ids
    return ids


@torch.inference_mode()
def answer(
    tuned: Tuned, prompts: Sequence[Sequence[int]], sampling: Sampling, write: Callable[[str], None] | None = None
) -> list[str]:
    """Answers to one batch of prompts; `write` gets the text of a single one as it comes.

    A prompt that leaves no room for its answer loses its beginning. Raises OutOfMemoryError.
    """
    model: Any = tuned.model
    tokenizer, most = tuned.tokenizer, room(tuned.model, sampling.max_new_tokens)
    asked = [list(prompt[-most:] if most else prompt) or begin_tokens(tokenizer) for prompt in prompts]
    new = sampling.max_new_tokens
    if most:
        new = min(new, model.config.max_position_embeddings - max(map(len, asked)))
    config = _choice(tuned, sampling, new)
    with translating_out_of_memory():
        encoded = tokenizer.pad({"input_ids": asked}, return_tensors="pt").to(model.device)
        streamer = _Pieces(tokenizer, write) if write else None
        output = model.generate(**encoded, generation_config=config, streamer=streamer)
    new_tokens = output.sequences[:, encoded["input_ids"].shape[1] :]
    texts: list[str] = tokenizer.batch_decode(new_tokens, skip_special_tokens=True)
    return [text.strip() for text in texts]


def answer_each(tuned: Tuned, prompts: Sequence[Sequence[int]], sampling: Sampling, batch_size: int) -> list[str]:
    """Answers in the order of the prompts, `batch_size` of similar length at a time. Raises OutOfMemoryError."""
    begin(sampling)
    answers = [""] * len(prompts)
    for batch in length_batches([len(prompt) for prompt in prompts], batch_size):
        texts = answer(tuned, [prompts[index] for index in batch], sampling)
        for index, text in zip(batch, texts, strict=True):
            answers[index] = text
    return answers


def begin(sampling: Sampling) -> None:
    """From here on the same tokens are drawn each time."""
    set_seed(sampling.seed)


def _choice(tuned: Tuned, sampling: Sampling, max_new_tokens: int) -> GenerationConfig:
    config = greedy(tuned.model, tuned.tokenizer, max_new_tokens)
    if sampling.temperature > 0:
        config.do_sample, config.temperature, config.top_p = True, sampling.temperature, sampling.top_p
        config.top_k = 0  # transformers' own 50 would cut where nobody asked for it
    return config
