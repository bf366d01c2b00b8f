# ruff: noqa: D101, D102, D103
"""Stand-in for the data stage, to be replaced: only what the verbs call, and the names they use of what it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lft.core.rank import Rank
from lft.core.settings import DataSettings, ModelSettings
from lft.data.source import Source


class TokenRows(Protocol):
    lengths: npt.NDArray[np.int32]

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> dict[str, npt.NDArray[Any]]: ...
    def column(self, name: str) -> npt.NDArray[Any]: ...


class Manifest(Protocol):
    blocks: int
    rows: int
    kept: int
    empty: int
    bad: Sequence[tuple[int, int, str]]
    masked: Sequence[tuple[int, int]]
    words: Sequence[str]


class Prepared(Protocol):
    folder: Path
    manifest: Manifest
    source: Source
    rows: TokenRows
    training: TokenRows
    held_out: TokenRows


LoadTokenizer = Callable[[], tuple[Any, int | None]]


@dataclass(frozen=True, slots=True)
class Work:
    """Who prepares, with how many processes, and whom it tells."""

    rank: Rank
    announce: Callable[[str], None]
    processes: int = 1
    between: Callable[[int, int], None] = lambda _made, _blocks: None
    """Told how many blocks are there and how many there will be, again and again; what it raises ends the work."""


def prepare(
    model: ModelSettings, data: DataSettings, load: LoadTokenizer, work: Work, *, rehash: bool = False
) -> Prepared:
    raise NotImplementedError


def find_prepared(model: ModelSettings, data: DataSettings) -> Prepared | None:
    raise NotImplementedError


def tokenizer_loader(model: ModelSettings, announce: Callable[[str], None]) -> LoadTokenizer:
    """How to load the model's tokenizer, and the number of its positions."""
    raise NotImplementedError
