"""The data stage: from settings to prepared tokens, found in the cache or made now by all ranks together."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lft.core.errors import DataError
from lft.core.paths import expanded, local_files
from lft.core.rank import Rank, tokenize_serially
from lft.core.settings import DataSettings, ModelSettings
from lft.data.bad_rows import BadRows, bad_rows_error, find_bad_rows
from lft.data.cache import usable_cache
from lft.data.cache_entry import hold
from lft.data.cache_key import cache_key, tokenizer_in_memory, tokenizer_on_disk
from lft.data.example import BadRow, Example
from lft.data.forks import forked
from lft.data.formats import RowFormat, recognise, unused_columns
from lft.data.manifest import HowWritten, Manifest, read_manifest, remove_manifest, write_manifest
from lft.data.prepared import Prepared
from lft.data.shard_format import BlockCounts
from lft.data.shards import make_shards, read_count, shard_path
from lft.data.source import Block, Source
from lft.data.sources import dataset_source, open_source
from lft.data.spool import forget_spool, needs_spool

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

MOST_LISTED = 20
"""Bad rows shown at once."""

LoadTokenizer = Callable[[], tuple["PreTrainedTokenizerBase", int | None]]
"""Gives a tokenizer and the number of the model's positions; called only where tokens have to be made."""


@dataclass(frozen=True, slots=True)
class Work:
    """Who prepares, with how many processes, and whom it tells."""

    rank: Rank
    announce: Callable[[str], None]
    processes: int = 1
    """For this rank's share; all but the first are forked."""
    between: Callable[[int, int], None] = lambda _made, _blocks: None
    """Told how many blocks are there and how many there will be, again and again; what it raises ends the work."""


def prepare(
    model: ModelSettings,
    data: DataSettings,
    load: LoadTokenizer,
    work: Work,
    *,
    rows_needed: int | None = None,
    rehash: bool = False,
) -> Prepared:
    """The tokens of `data` for `model`, made now where the cache lacks them.

    Every rank calls it, before there is any process group. `rows_needed` bounds what is read of a streamed source.
    `rehash` reads all bytes of the source again and makes those blocks anew that are others; one process at a time.
    Raises DataError for data that cannot be used, PreflightError for a tokenizer that cannot be had.
    """
    cache = usable_cache()
    for path in local_files(data.source_names):
        if rehash:
            forget_spool(path, cache)
        if needs_spool(path, cache):
            work.announce(f"data       {path.name} is written out once, so that it can be read in blocks")
    source = open_source(data, cache=cache, rows_needed=rows_needed)
    tokenizer = tokenizer_on_disk(model)
    if tokenizer is None:
        loaded = load()  # from the Hub, into its cache
        tokenizer = tokenizer_on_disk(model) or tokenizer_in_memory(*loaded)
    return prepare_source(source, data, tokenizer, load, work, rehash=rehash)


def prepare_source(
    source: Source, data: DataSettings, tokenizer: str, load: LoadTokenizer, work: Work, *, rehash: bool = False
) -> Prepared:
    """As `prepare`, of an opened source, for a tokenizer named by its digest."""
    template, identity = template_text(data.chat_template), source.identity()
    folder = _folder(identity, data, tokenizer, template)
    row_format = recognise(source.head(), data)
    folder.mkdir(parents=True, exist_ok=True)
    held = hold(folder)
    if rehash:
        _drop_stale(folder, source, work)
    manifest = read_manifest(folder)
    if manifest is None:
        manifest = _make(folder, source, data, row_format, template, load, work)
        if source.identity() != identity:
            for index in range(manifest.blocks):
                shard_path(folder, index).unlink(missing_ok=True)
            raise DataError("the data was changed while it was being prepared", next_step="type the command again")
        write_manifest(folder, manifest)
    else:
        work.announce(f"data       {manifest.rows:,} rows, tokens found in the cache")
    _check_bad_rows(manifest, source, data)
    return Prepared(folder, manifest, source, row_format, data, held)


def prepare_in_memory(
    dataset: "Dataset",
    values: dict[str, Any],
    tokenizer: "PreTrainedTokenizerBase",
    longest: int | None,
    work: Work,
) -> Prepared:
    """As `prepare`, of a caller's data set and tokenizer; `values` are data settings, and no row is held out."""
    data = DataSettings.model_validate({"source": "in/memory", "held_out": 0} | values)
    digest = tokenizer_in_memory(tokenizer, longest)
    return prepare_source(dataset_source(dataset), data, digest, lambda: (tokenizer, longest), work)


def find_prepared(model: ModelSettings, data: DataSettings) -> Prepared | None:
    """What the cache holds of `data` for `model`, found without tokenizer and network; None where it is to be made.

    Raises DataError for data that cannot be used.
    """
    tokenizer = tokenizer_on_disk(model)
    if tokenizer is None:
        return None
    source = open_source(data, cache=usable_cache())
    folder = _folder(source.identity(), data, tokenizer, template_text(data.chat_template))
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    row_format = recognise(source.head(), data)
    _check_bad_rows(manifest, source, data)
    return Prepared(folder, manifest, source, row_format, data, hold(folder))


def template_text(setting: str | None) -> str | None:
    """The Jinja text of data.chat_template, which may be the name of its file. Raises DataError."""
    if setting is None or "{" in setting:
        return setting
    path = expanded(setting)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"data.chat_template {setting} is no Jinja text, and as a file it cannot be read: {error}",
            next_step="name a file with a Jinja chat template, or leave it out to use the tokenizer's",
        ) from None


def _folder(identity: list[Any], data: DataSettings, tokenizer: str, template: str | None) -> Path:
    return usable_cache() / "tokens" / cache_key(identity, tokenizer, data, template)


def _make(
    folder: Path,
    source: Source,
    data: DataSettings,
    row_format: RowFormat,
    template: str | None,
    load: LoadTokenizer,
    work: Work,
) -> Manifest:
    """Tokenize all blocks that are missing, together with the other ranks."""
    # with jinja2, which a cache that has everything need not wait for
    from lft.data.token_block import Tokenization, TokenRules
    from lft.data.writing import choose_writing

    blocks = source.blocks
    missing = sum(not shard_path(folder, index).exists() for index in range(len(blocks)))
    extra = max(0, min(work.processes, missing) - 1)
    if extra:
        tokenize_serially()  # before the first text: threads that are there already would be missing in forked processes
    tokenizer, positions = load()
    chosen = choose_writing(tokenizer, _examples(source, row_format), template)
    max_length = min(data.max_length, positions or data.max_length)
    rules = TokenRules(repr(row_format), chosen.style, max_length, data.loss_on, chosen.chat_template)
    tokenization = Tokenization(tokenizer, rules, work.announce)

    def make(index: int) -> tuple["pa.RecordBatch", BlockCounts]:
        gc.collect()  # what the block before left in circles; all else is frozen
        batch, counts = tokenization.block(_read(source, blocks[index], row_format))
        if counts.bad and data.on_bad_row == "error":
            raise _refusal(source, row_format, counts.bad)
        return batch, replace(counts, digest=source.digest(blocks[index]))

    def lend_a_hand(number: int) -> None:
        helping = replace(work.rank, rank=work.rank.rank + (number + 1) * work.rank.world_size, world_size=ranks)
        make_shards(folder, len(blocks), make, helping, lambda _: None)

    ranks = work.rank.world_size * (1 + extra)
    with _collector_resting(), forked(extra, lend_a_hand):
        make_shards(
            folder,
            len(blocks),
            make,
            replace(work.rank, world_size=ranks),
            lambda made: work.between(made, len(blocks)),
        )
    unused = unused_columns(source.head(), row_format)
    cut = "" if max_length == data.max_length else f", the model's positions, not data.max_length {data.max_length:,}"
    how = HowWritten(
        columns=tuple(row_format.columns),
        style=chosen.style,
        max_length=max_length,
        pad_is_end=tokenizer.pad_token_id is not None and tokenizer.pad_token_id == tokenizer.eos_token_id,
        words=(
            f"columns    {row_format.describe()}" + (f"; not used: {', '.join(unused)}" if unused else ""),
            f"written    as {chosen.words}; {tokenization.describe()}",
            f"loss on    {_TRAINED[data.loss_on]}; rows are cut at {max_length:,} tokens{cut}",
        ),
        chat_template=chosen.chat_template,
    )
    return Manifest.of([read_count(folder, index) for index in range(len(blocks))], how)


_TRAINED = {
    "auto": "every answer, or plain text whole (loss_on: auto)",
    "assistant": "every answer, or plain text whole",
    "completion": "the last answer, or plain text whole",
    "all": "prompts and answers",
}


@contextmanager
def _collector_resting() -> Iterator[None]:
    """The garbage collector walks through all that the libraries have loaded whenever rows make enough new objects.

    That is 30 of 75 us a row; frozen, it also leaves the memory alone that forked processes share.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _read(source: Source, block: Block, row_format: RowFormat) -> Iterator[tuple[int, int, Example | BadRow]]:
    """The examples of a block; rows with nothing to train are left out by an example without text."""
    for where, row in source.read(block):
        if isinstance(row, BadRow):
            yield block.file, where, row
            continue
        try:
            yield block.file, where, row_format.example(row) or _EMPTY
        except BadRow as problem:
            yield block.file, where, problem


_EMPTY = Example(("text",), ("",), 0)


def _examples(source: Source, row_format: RowFormat) -> Iterator[Example]:
    """Those of the first rows that can be used."""
    for row in source.head():
        try:
            example = row_format.example(row)
        except BadRow:
            continue
        if example is not None:
            yield example


def _refusal(source: Source, row_format: RowFormat, bad: Sequence[tuple[int, int, str]]) -> DataError:
    """The error that names the bad rows of the whole source; `bad` are those of one block."""
    found = find_bad_rows(source, row_format, MOST_LISTED)
    # what only writing a row out shows, such as a template that refuses it, is known of this block alone
    return bad_rows_error(source, found if found.found else BadRows(tuple(bad[:MOST_LISTED]), may_be_more=True))


def _check_bad_rows(manifest: Manifest, source: Source, data: DataSettings) -> None:
    """Refuse what an earlier run was told to skip, unless this one is told so too."""
    if manifest.bad and data.on_bad_row == "error":
        listed = manifest.bad[:MOST_LISTED]
        raise bad_rows_error(source, BadRows(listed, may_be_more=len(manifest.bad) > len(listed)))


def _drop_stale(folder: Path, source: Source, work: Work) -> None:
    """Remove the shards of blocks whose bytes are others than those they were made of."""
    made = [index for index in range(len(source.blocks)) if shard_path(folder, index).exists()]
    stale = [index for index in made if source.digest(source.blocks[index]) != read_count(folder, index).digest]
    work.announce(f"data       all bytes read again: {len(stale):,} of {len(made):,} blocks are others than before")
    if stale:
        remove_manifest(folder)
        for index in stale:
            shard_path(folder, index).unlink(missing_ok=True)
