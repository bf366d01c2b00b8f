"""A row of tokens as text, in pieces that are trained or not."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lft.data.shard_format import IGNORED

Decode = Callable[[list[int]], str]
"""Tokens to text, special tokens included."""


class Piece(NamedTuple):
    """The text of consecutive tokens."""

    text: str
    is_trained: bool


def pieces(row: Mapping[str, npt.NDArray[Any]], decode: Decode) -> list[Piece]:
    """The row's text, cut where training begins or ends; `row` has input_ids and labels, each (tokens,).

    A piece's text is what its tokens add to the text before them, since many tokenizers write a token at the beginning of
    a text differently.
    """
    ids, is_trained = row["input_ids"].tolist(), row["labels"] != IGNORED
    borders = [0, *(np.flatnonzero(is_trained[1:] != is_trained[:-1]) + 1).tolist(), len(ids)]
    found, before = [], ""
    for start, stop in pairwise(borders):
        if start == stop:
            continue
        text = decode(ids[:stop])
        added = text[len(before) :] if text.startswith(before) else decode(ids[start:stop])
        found.append(Piece(added, bool(is_trained[start])))
        before = text
    return found


def spread(rows: int, shown: int) -> list[int]:
    """Numbers of `shown` rows, at most all, evenly spread over them: the first, and others up to near the last."""
    shown = min(rows, shown)
    return [number * rows // shown for number in range(shown)]
