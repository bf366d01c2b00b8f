"""Data sets on the Hugging Face Hub, as tables: downloaded by the datasets library, or only their first rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lft.core.errors import DataError
from lft.core.settings import DataSettings
from lft.data.identity import file_identity
from lft.data.spool import spool
from lft.data.table_file import ArrowFile, DatasetFile

if TYPE_CHECKING:
    from datasets import Dataset

STREAMED_ROWS = 1000
"""Rows asked for at a time."""


def hub_file(name: str, data: DataSettings) -> DatasetFile:
    """All rows of a split. Raises DataError."""
    rows = load_hub(name, data)
    files = [file_identity(Path(file["filename"])) for file in rows.cache_files]
    named_by = [data.split, len(rows), *files] if files else None
    return DatasetFile(rows, name, named_by)


def load_hub(name: str, data: DataSettings) -> "Dataset":
    """The split as the datasets library has it. Raises DataError for whatever the Hub or the library refuses."""
    from datasets import Dataset

    with _refusals(name):
        loaded = _load(name, data, streaming=False)
    if not isinstance(loaded, Dataset):
        raise DataError(f'data set "{name}" gave a {type(loaded).__name__} for split "{data.split}"; rows are expected')
    return loaded


def streamed_file(name: str, data: DataSettings, rows: int, cache: Path) -> ArrowFile:
    """The first rows of a split, kept in the cache under the commit they are of; nothing else is loaded. Raises DataError."""
    with _refusals(name):
        commit = _info(name, data.revision).sha
        identity = ["hub", name, data.config, data.split, data.data_files, commit, rows]
        found = spool(cache, identity, ".arrow", lambda target: _write_first(name, data, rows, target))
    return ArrowFile(found, name=name)


def _write_first(name: str, data: DataSettings, rows: int, target: Path) -> None:
    tables = _load(name, data, streaming=True).take(rows).with_format("arrow").iter(STREAMED_ROWS)
    first = next(tables, None)
    if first is None:
        raise DataError(f'data set "{name}" holds no rows')
    with pa.OSFile(str(target), "wb") as sink, pa.ipc.new_stream(sink, first.schema) as stream:
        stream.write_table(first)
        for table in tables:
            stream.write_table(table.cast(first.schema))


def _load(name: str, data: DataSettings, *, streaming: bool) -> Any:
    import datasets

    return datasets.load_dataset(
        _full_name(name),
        data.config,
        split=data.split,
        data_files=data.data_files,
        revision=data.revision,
        streaming=streaming,
    )


def _full_name(name: str) -> str:
    """`wikitext` -> `Salesforce/wikitext`: the Hub still knows its oldest names, huggingface_hub 2 takes none without owner."""
    return name if "/" in name else str(_info(name, None).id)


def _info(name: str, revision: str | None) -> Any:
    from huggingface_hub import HfApi

    return HfApi().dataset_info(name, revision=revision)


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # datasets, its builders, the Hub's client and the network each raise their own
        reason = str(error).strip().split("\n")[0]
        hint = f"{Path(name).name} is no local path either" if "/" not in name else "check the name and the network"
        raise DataError(f'data set "{name}" cannot be loaded from the Hub: {reason} ({hint})') from None
