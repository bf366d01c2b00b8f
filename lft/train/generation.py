"""Greedy answers of a model to given prompts, in batches that do not depend on the number of ranks.

Work is cut into batches of similar length once, for all ranks. The same rows stand in the same batch whatever the number of
ranks, so that even rounding is the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from lft.data.example import Style
from lft.data.token_block import begin_tokens
from lft.data.writing import adds_special_tokens, render_prompt

ROUND_TOKENS = 16
"""After so many tokens, answers that have ended leave the batch."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer without special tokens, and how many tokens were generated for it, its end included."""

    text: str
    tokens: int


def length_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Numbers of the rows, longest first, in batches: running out of memory shows in the first one."""
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, style: Style, prompts: Sequence[str]) -> list[list[int]]:
    """Each prompt as the model meets it before it answers."""
    texts = [render_prompt(tokenizer, style, prompt) for prompt in prompts]
    begin = begin_tokens(tokenizer) if adds_special_tokens(style) else []
    ids = tokenizer(texts, add_special_tokens=False, return_attention_mask=False).input_ids
    return [begin + tokens for tokens in ids]


def room(model: Any, max_new_tokens: int) -> int | None:
    """How many tokens may stand before an answer; None where the model has no such bound."""
    positions = getattr(model.config, "max_position_embeddings", None)
    return max(1, positions - min(max_new_tokens, positions // 2)) if positions else None


def answer_all(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int,
) -> list[str]:
    """Greedy answers to tokenized prompts, in their order, `batch_size` of similar length at a time."""
    answers = [""] * len(prompts)
    for batch in length_batches([len(prompt) for prompt in prompts], batch_size):
        found = generate_answers(model, tokenizer, [prompts[index] for index in batch], max_new_tokens)
        for index, answer in zip(batch, found, strict=True):
            answers[index] = answer.text
    return answers


@torch.inference_mode()
def generate_answers(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    between: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """Greedy answers to one batch of tokenized prompts; `between` is called every few tokens, and may raise.

    A prompt that leaves no room for its answer within the model's positions loses its beginning. An answer that has ended
    leaves the batch, so that the rest is computed faster.
    """
    positions, most = getattr(model.config, "max_position_embeddings", None), room(model, max_new_tokens)
    if positions and most:
        max_new_tokens = min(max_new_tokens, positions - most)
        prompts = [prompt[-most:] for prompt in prompts]
    encoded = tokenizer.pad({"input_ids": [list(prompt) for prompt in prompts]}, return_tensors="pt").to(model.device)
    ids, mask, cache = encoded["input_ids"], encoded["attention_mask"], None
    width, made = ids.shape[1], 0
    greedily = greedy(model, tokenizer, max_new_tokens)
    ends = torch.tensor(greedily.eos_token_id or [], device=ids.device)
    answers: list[Answer | None] = [None] * len(prompts)
    rows = torch.arange(len(prompts), device=ids.device)
    while len(rows):
        between()
        # a model that gives no cache back would read everything again in each round
        is_last = made > 0 and cache is None
        greedily.max_new_tokens = max_new_tokens - made if is_last else min(ROUND_TOKENS, max_new_tokens - made)
        output = model.generate(input_ids=ids, attention_mask=mask, past_key_values=cache, generation_config=greedily)
        ids, cache = output.sequences, output.get("past_key_values")
        mask = torch.cat([mask, mask.new_ones(len(rows), ids.shape[1] - mask.shape[1])], dim=1)
        made = ids.shape[1] - width
        has_ended = torch.isin(ids[:, width:], ends).any(dim=1) | (made >= max_new_tokens)
        for row in has_ended.nonzero()[:, 0].tolist():
            answers[int(rows[row])] = _answer(tokenizer, ids[row, width:], ends)
        going = (~has_ended).nonzero()[:, 0]
        if 0 < len(going) < len(rows) and cache is not None:
            cache = _only(cache, going)
        rows, ids, mask = rows[going], ids[going], mask[going]
    return [answer for answer in answers if answer is not None]


def _answer(tokenizer: PreTrainedTokenizerBase, tokens: torch.Tensor, ends: torch.Tensor) -> Answer:
    at_end = torch.isin(tokens, ends).nonzero()[:, 0].tolist()
    tokens = tokens[: at_end[0] + 1] if at_end else tokens
    text: Any = tokenizer.decode(tokens, skip_special_tokens=True)
    return Answer(text.strip(), len(tokens))


def _only(cache: Any, rows: torch.Tensor) -> Any:
    """The cache of these rows alone; None where a layer of it (linear attention's) cannot be taken apart."""
    if not all(hasattr(layer, "batch_select_indices") for layer in getattr(cache, "layers", [None])):
        return None
    cache.batch_select_indices(rows)
    return cache


def greedy(model: Any, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> GenerationConfig:
    """The likeliest token each time, whatever sampling the checkpoint suggests; all its end tokens are kept."""
    own = model.generation_config.eos_token_id if model.generation_config else None
    ends = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id} - {None}
    return GenerationConfig(
        do_sample=False,
        # what is not set here would be the checkpoint's
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_new_tokens=0,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
        return_dict_in_generate=True,
    )
