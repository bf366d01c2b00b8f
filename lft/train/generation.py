"""Answers and losses of a model on given prompts, in batches that do not depend on the number of ranks.

Work is cut into batches of similar length once, for all ranks; a rank takes every world-size-th batch. The same rows stand in
the same batch whatever the number of ranks, so that even rounding is the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from lft.data.example import Style
from lft.data.token_block import begin_tokens
from lft.data.writing import adds_special_tokens, render_prompt
from lft.train.batches import PadToLongest
from lft.train.loss import token_losses


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
        texts = generate_answers(model, tokenizer, [prompts[index] for index in batch], max_new_tokens)
        for index, text in zip(batch, texts, strict=True):
            answers[index] = text
    return answers


@torch.inference_mode()
def generate_answers(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]], max_new_tokens: int
) -> list[str]:
    """Greedy answers to one batch of tokenized prompts, without the prompts and without special tokens.

    A prompt that leaves no room for its answer within the model's positions loses its beginning.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions:
        max_new_tokens = min(max_new_tokens, positions // 2)
        prompts = [prompt[-(positions - max_new_tokens) :] for prompt in prompts]
    encoded = tokenizer.pad({"input_ids": [list(prompt) for prompt in prompts]}, return_tensors="pt").to(model.device)
    output = model.generate(**encoded, generation_config=greedy(model, tokenizer, max_new_tokens))
    answers: list[str] = tokenizer.batch_decode(output[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def greedy(model: Any, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int) -> GenerationConfig:
    """The likeliest token each time, whatever sampling the checkpoint suggests; all its end tokens are kept."""
    own = model.generation_config.eos_token_id if model.generation_config else None
    ends = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id} - {None}
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )


@torch.inference_mode()
def row_losses(model: Any, pad_token_id: int, tokens: Sequence[Mapping[str, Any]]) -> list[tuple[float, int]]:
    """Summed loss and number of trained tokens of each row of one batch; rows as in PadToLongest."""
    batch = PadToLongest(pad_token_id)(tokens)
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    labels = batch.pop("labels")
    losses, rows = token_losses(model(**batch, use_cache=False).logits, labels)
    sums = torch.zeros(len(tokens), dtype=torch.float64, device=losses.device).index_add_(0, rows, losses.double())
    counts = torch.bincount(rows, minlength=len(tokens))
    return list(zip(sums.tolist(), counts.tolist(), strict=True))
