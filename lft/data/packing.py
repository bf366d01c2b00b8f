"""Several rows in one sequence: best-fit decreasing over whole rows, counted by length and by room.

Placing row by row costs a search each. All rows of one length that meet packs with the same room end alike, so they are
placed at once, as histogram packing does (Krell et al. 2021, arXiv:2107.02027). The result is that of best-fit decreasing:
at most 11/9 of the fewest packs possible, plus 4 (Johnson et al. 1974, SIAM J. Comput. 3, 299-325).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lft.core.errors import DataError
from lft.data.token_rows import TokenRows


@dataclass(frozen=True, slots=True, eq=False)
class Packs:
    """Rows by pack, compressed: pack p holds rows[offsets[p]:offsets[p + 1]]."""

    rows: np.ndarray
    """(rows,) int64: row numbers, each once."""
    offsets: np.ndarray
    """(packs + 1,) int64."""
    lengths: np.ndarray
    """(packs,) int64: tokens of each pack."""
    size: int
    """Most tokens of a pack."""

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, pack: int) -> np.ndarray:
        """Row numbers of one pack, the longest row first."""
        return self.rows[self.offsets[pack] : self.offsets[pack + 1]]

    @property
    def fill(self) -> float:
        """Share of the packs that holds tokens; 0 without packs."""
        return float(self.lengths.sum()) / max(len(self) * self.size, 1)


def pack(lengths: np.ndarray, size: int, seed: int) -> Packs:
    """Put rows of these lengths (rows,) into packs of at most `size` tokens; no row is split.

    Each row goes to the pack with the least room that is enough, the longest rows first. The seed decides which of the
    rows of one length go together, so that neighbours of a file do not always meet. Raises DataError where a row is
    longer than a pack.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if len(lengths) and lengths.max() > size:
        row = int(lengths.argmax())
        raise DataError(
            f"row {row} has {lengths[row]:,} tokens, and a pack holds {size:,}",
            next_step="cut the rows, or pack them into longer sequences",
        )
    shuffled = np.random.default_rng(seed).permutation(len(lengths))
    longest_first = shuffled[np.argsort(-lengths[shuffled], kind="stable")]
    chosen = np.empty(len(lengths), dtype=np.int64)  # pack of each row, the longest row first
    placed = 0
    for packs, each in _placements(np.maximum(lengths, 1), size):
        stop = min(placed + len(packs) * each, len(lengths))
        chosen[placed:stop] = np.repeat(packs, each)[: stop - placed]
        placed = stop
    counts = np.bincount(chosen)
    rows = longest_first[np.argsort(chosen, kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(counts)])
    tokens = np.bincount(chosen, weights=lengths[longest_first]).astype(np.int64)
    return Packs(rows, offsets, tokens, size)


def _placements(lengths: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Packs (packs,), each of which takes the next `each` rows, for rows in descending order of length.

    A pack that has taken a row is still the best fit for the next of that length, until its room is less than that.
    """
    with_room: dict[int, list[np.ndarray]] = defaultdict(list)
    is_open = np.zeros(size + 1, dtype=bool)  # whether any pack has that much room
    opened = 0

    def keep(packs: np.ndarray, room: int) -> None:
        if room and len(packs):
            with_room[room].append(packs)
            is_open[room] = True

    counts = np.bincount(lengths, minlength=size + 1)
    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        for room in (np.flatnonzero(is_open[length:]) + length).tolist():
            packs, each = np.concatenate(with_room.pop(room)), room // length
            is_open[room] = False
            full = min(len(packs), left // each)
            yield packs[:full], each
            keep(packs[:full], room - each * length)
            left -= full * each
            if full < len(packs):
                if left:
                    yield packs[full : full + 1], left
                    keep(packs[full : full + 1], room - left * length)
                    full += 1
                keep(packs[full:], room)
                left = 0
            if not left:
                break
        if left:
            each = size // length
            packs = np.arange(opened, opened - (-left // each))
            opened += len(packs)
            last = left - (len(packs) - 1) * each  # rows in the last one
            yield packs[:-1], each
            yield packs[-1:], last
            keep(packs[:-1], size - each * length)
            keep(packs[-1:], size - last * length)


class PackedRows:
    """Packs as a data set: item p is the list of the rows of pack p."""

    def __init__(self, rows: TokenRows, packs: Packs) -> None:
        self.rows, self.packs = rows, packs
        self.lengths = packs.lengths

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> list[dict[str, np.ndarray]]:
        return [self.rows[row] for row in self.packs[index].tolist()]
