"""The split into training and held-out rows."""

import hashlib
import json
from typing import TYPE_CHECKING

from lft.core.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def split_held_out(rows: "Dataset", columns: list[str], held_out: float) -> tuple["Dataset", "Dataset"]:
    """Training and held-out rows. `held_out` is a share (below 1) or a number of rows.

    A row's side follows from the hash of its content in `columns`: the same whatever the order of the rows, equal rows
    always on the same side. A number takes the rows with the smallest hashes, and with the last one all that equal it.
    """
    if held_out == 0:
        return rows, rows.select([])
    hashes = [_row_hash(row) for row in rows.select_columns(columns).to_list()]
    limit = held_out * 2**64 if held_out < 1 else sorted(hashes)[min(int(held_out), len(hashes)) - 1] + 1
    held = [index for index, value in enumerate(hashes) if value < limit]
    kept = [index for index, value in enumerate(hashes) if value >= limit]
    if not kept:
        raise DataError(
            f"data.held_out is {held_out:g} and leaves no row to train on; there are {len(rows)} rows",
            next_step="lower it, for example: --set data.held_out=0.1",
        )
    return rows.select(kept), rows.select(held)


def _row_hash(row: dict[str, object]) -> int:
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
