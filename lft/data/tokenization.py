"""Rows to tokens: input_ids and labels, where only what is trained has a label.

Labels are made from spans, never from padding ids, so that a pad token that equals the end token does no harm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from transformers import PreTrainedTokenizerBase

from lft.data.chat import Style, adds_special_tokens, render_row
from lft.data.columns import RowFormat

IGNORED = -100
"""The label of a token that is not trained, as in torch.nn.functional.cross_entropy."""

VERSION = 1
"""Part of the cache key: raise it when the same rows would become other tokens."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Everything besides the rows and the tokenizer that decides what the tokens are."""

    format: RowFormat
    style: Style
    max_length: int
    loss_on: Literal["completion", "all"]


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """What became of the rows of one data set."""

    rows: int
    kept: int
    cut: int
    tokens: int
    trained: int

    @property
    def dropped(self) -> int:
        """Rows with nothing to train on."""
        return self.rows - self.kept

    @property
    def tokens_per_row(self) -> float:
        """Mean length of the kept rows."""
        return self.tokens / max(self.kept, 1)


SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "attention_mask": pa.list_(pa.int8()),
        "labels": pa.list_(pa.int32()),
        "was_cut": pa.bool_(),
    }
)


def tokenize_rows(rows: Sequence[dict[str, object]], tokenizer: PreTrainedTokenizerBase, rules: TokenRules) -> pa.Table:
    """Tokens of the rows that have any, in order, as a table of SCHEMA; one Rust call for all rows of a kind.

    A row without text, or whose answer lies wholly behind `max_length`, is left out. Prompt and answer are tokenized
    apart, because that is how the model meets the prompt when it generates.
    """
    combined = [rules.format.combine(row) for row in rows]
    pairs = [render_row(tokenizer, rules.style, prompt, answer) for prompt, answer in combined if answer]
    table: dict[str, list[object]] = {name: [] for name in SCHEMA.names}
    if not pairs:
        return pa.table(table, SCHEMA)
    begin = begin_tokens(tokenizer) if adds_special_tokens(rules.style) else []
    befores = _plain_ids(tokenizer, [before for before, _ in pairs])
    answers = _plain_ids(tokenizer, [answer for _, answer in pairs])
    for before, answer in zip(befores, answers, strict=True):
        context = [*begin, *before]
        ids = context + answer
        trained_from = len(begin) if rules.loss_on == "all" else len(context)
        labels = [IGNORED] * trained_from + ids[trained_from:]
        if len(labels) <= trained_from or rules.max_length <= max(trained_from, 1):
            continue  # position 0 has nothing before it to be predicted from
        kept = ids[: rules.max_length]
        table["input_ids"].append(kept)
        table["attention_mask"].append([1] * len(kept))
        table["labels"].append(labels[: rules.max_length])
        table["was_cut"].append(len(ids) > rules.max_length)
    return pa.table(table, SCHEMA)


def begin_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer itself puts before a text, if anything."""
    ids: list[int] = tokenizer("").input_ids
    return ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []


def _plain_ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False).input_ids
    return ids
