"""From a source to rows: local files, or a data set on the Hub; and the split into training and held-out rows."""

import hashlib
import json
from pathlib import Path

import datasets
import pyarrow as pa
from datasets import Dataset
from huggingface_hub import HfApi

from lft.core.errors import DataError
from lft.core.paths import looks_local, source_files, source_problem
from lft.data.records import read_table


def load_rows(
    source: str,
    *,
    config: str | None = None,
    split: str = "train",
    num_samples: int | None = None,
    data_files: str | None = None,
) -> Dataset:
    """The rows of a local source (file, folder, pattern) or of a Hub data set, at most `num_samples`.

    Raises DataError with the file, line or Hub name and what was expected.
    """
    rows = _load_local(source, num_samples) if looks_local(source) else _load_hub(source, config, split, data_files)
    if num_samples is not None and num_samples < len(rows):
        rows = rows.select(range(num_samples))
    if len(rows) == 0:
        raise DataError(f"{source} holds no rows")
    return rows


def split_held_out(rows: Dataset, columns: list[str], held_out: float) -> tuple[Dataset, Dataset]:
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


def _load_local(source: str, num_samples: int | None) -> Dataset:
    problem = source_problem(source)
    if problem:
        raise DataError(problem)
    files = source_files(source)
    tables = [read_table(path, num_samples) for path in files]
    try:
        return Dataset(pa.concat_tables(tables, promote_options="permissive"))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        names = ", ".join(path.name for path in files[:5])
        raise DataError(f"{source}  the files ({names}) have columns of different types: {error}") from None


def _load_hub(source: str, config: str | None, split: str, data_files: str | None) -> Dataset:
    try:
        loaded = datasets.load_dataset(_full_name(source), config, split=split, data_files=data_files)
    except Exception as error:  # datasets, its builders, the Hub's client and the network each raise their own
        reason = str(error).strip().split("\n")[0]
        hint = f"{Path(source).name} is no local path either" if "/" not in source else "check the name and the network"
        raise DataError(f'data set "{source}" cannot be loaded from the Hub: {reason} ({hint})') from None
    if not isinstance(loaded, Dataset):
        raise DataError(f'data set "{source}" gave a {type(loaded).__name__} for split "{split}"; rows are expected')
    return loaded


def _full_name(source: str) -> str:
    """`wikitext` -> `Salesforce/wikitext`: the Hub still knows its oldest names, huggingface_hub 2 takes none without owner."""
    return source if "/" in source else str(HfApi().dataset_info(source).id)
