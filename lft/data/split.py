"""Which rows train, how often, and which are held out: decided by the hash of a row's content, never by its place."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lft.core.errors import DataError

Hashes = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]


def split(content: Hashes, held_out: float) -> tuple[Indices, Indices]:
    """Numbers of the rows to train on and of those held out, both ascending.

    `content` (rows,) is the hash of each row's text. `held_out` is a share (below 1) or a number of rows. A row's side is
    the same whatever the order of the rows; with a share also when rows are added; equal rows are always on the same
    side. A number takes the rows with the smallest hashes, and with the last one all that equal it.
    Raises DataError where no row is left to train on.
    """
    if held_out == 0 or len(content) == 0:
        return np.arange(len(content)), np.empty(0, np.int64)
    if held_out < 1:
        is_held = content < np.uint64(held_out * 2**64)
    else:
        last = min(int(held_out), len(content)) - 1
        is_held = content <= np.partition(content, last)[last]
    if is_held.all():
        raise DataError(
            f"data.held_out is {held_out:g} and leaves no row to train on; there are {len(content):,} rows",
            next_step="lower it, for example: --set data.held_out=0.1",
        )
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def weighted(rows: Indices, weights: Sequence[float], files: npt.NDArray[np.int32], content: Hashes) -> Indices:
    """`rows`, each as often as the weight of its file says; of a fraction, the rows a second hash of their content picks.

    `weights` is by number of file, `files` (all rows,) says which file each row is from.
    """
    if all(weight == 1 for weight in weights):
        return rows
    weight = np.asarray(weights, np.float64)[files[rows]]
    whole = np.floor(weight)
    picked = _mixed(content[rows]) / 2.0**64 < weight - whole
    return np.repeat(rows, whole.astype(np.int64) + picked)


def _mixed(values: Hashes) -> Hashes:
    """Another hash of each hash: the finalizer of SplitMix64 (Steele et al. 2014), so that it is not the split's."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
