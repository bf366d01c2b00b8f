"""Causal attention inside each row of a pack, for CPUs: rows of about one length together, longer ones alone.

A pack of 1,024 tokens holds some five rows of 200: attention over the whole pack does five times the arithmetic.
"""

from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

ALONE = 96
"""Rows at least so long are attended one by one; shorter ones in groups, so that they cost no Python time each."""
BF16_OWN = 512
"""Below this length torch's CPU kernel is slower in bf16 than plain matrix products, and faster in float32 at any."""

Order = tuple[torch.Tensor | None, torch.Tensor | None, tuple[tuple[int, int], ...]]
"""Which token comes where once rows are grouped, filled up with token 0; the way back; (rows, length) of each group."""


@lru_cache(maxsize=64)
def grouped(borders: tuple[int, ...]) -> Order:
    """How to group rows; `borders` are their starts and the end, in the flattened batch."""
    groups: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for start, end in pairwise(borders):
        length = end - start
        # (length, 0) for short rows, filled up to a power of two; long ones keep their place in the order
        key = (length, start) if length >= ALONE else (1 << (length - 1).bit_length(), -1)
        groups.setdefault(key, []).append((start, length))
    shapes = tuple((len(rows), filled) for (filled, _), rows in groups.items())
    if all(place >= 0 for _, place in groups):
        return None, None, shapes
    there = torch.zeros(sum(rows * filled for rows, filled in shapes), dtype=torch.long)
    back, place = torch.zeros(borders[-1], dtype=torch.long), 0
    for (filled, _), rows in groups.items():
        for start, length in rows:
            tokens = torch.arange(length)
            there[place : place + length] = start + tokens
            back[start : start + length] = place + tokens
            place += filled
    return there, back, shapes


def segment_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, borders: tuple[int, ...], scale: float
) -> torch.Tensor:
    """Attention of a flattened batch: query (tokens, heads, width), key and value (tokens, key heads, width).

    The result is like `query`. What fills up a short row stands behind it, so that causal attention never sees it.
    """
    there, back, shapes = grouped(borders)
    sizes = [rows * length for rows, length in shapes]
    parts = [
        torch.split(tokens if there is None else tokens.index_select(0, there), sizes) for tokens in (query, key, value)
    ]
    results = []
    for (rows, length), *three in zip(shapes, *parts, strict=True):
        q, k, v = (tokens.view(rows, length, *tokens.shape[1:]).transpose(1, 2) for tokens in three)
        if query.dtype == torch.bfloat16 and length < BF16_OWN:
            result = CausalAttention.apply(q, k, v, scale)  # type: ignore[no-untyped-call]
        else:
            result = scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
        results.append(result.transpose(1, 2).reshape(rows * length, *query.shape[1:]))
    together = torch.cat(results)
    return together if back is None else together.index_select(0, back)


class CausalAttention(torch.autograd.Function):
    """softmax(q k' * scale) v by batched matrix products; query heads that share a key head are one product."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        """Queries (rows, heads, tokens, width), key and value (rows, key heads, tokens, width)."""
        length, width = query.shape[2:]
        q = query.reshape(-1, query.shape[1] // key.shape[1] * length, width)
        k, v = key.reshape(-1, length, width), value.reshape(-1, length, width)
        scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
        future = torch.ones(length, length, dtype=torch.bool).triu_(1)
        scores.view(-1, length, length).masked_fill_(future, float("-inf"))
        weights = torch.softmax(scores, dim=-1)  # sums in float32 inside
        ctx.save_for_backward(q, k, v, weights)
        ctx.scale, ctx.shapes = scale, (query.shape, key.shape, value.shape)
        return torch.bmm(weights, v).view(query.shape)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of query, key and value."""
        q, k, v, weights = ctx.saved_tensors
        g = gradient.reshape(q.shape)
        d_weights = torch.bmm(g, v.transpose(1, 2))
        d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype).mul_(ctx.scale)
        gradients = (
            torch.bmm(d_scores, k),
            torch.bmm(d_scores.transpose(1, 2), q),
            torch.bmm(weights.transpose(1, 2), g),
        )
        return *(values.view(shape) for values, shape in zip(gradients, ctx.shapes, strict=True)), None
