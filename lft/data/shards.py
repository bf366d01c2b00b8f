"""Tokenizing a data set in blocks shared out over a node's ranks, without a process group and so without a time-out.

Rows are cut into blocks whose size depends on the number of rows only. Each rank of a node tokenizes its share of them into
Arrow files, written aside and renamed; then it reads all files. Nodes do not wait for each other, since they may share no
folder. The folder is named by the content of the rows and by all that decides the tokens, so it is also the cache: a second
run, or a second rank, finds what the first one made.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedTokenizerBase

from lft.core.files import aside
from lft.core.rank import Rank
from lft.data.tokenization import SCHEMA, VERSION, TokenCounts, TokenRules, tokenize_rows

SMALLEST_BLOCK = 256
MOST_BLOCKS = 4096
POLL_SECONDS = 0.05
SECONDS_BETWEEN_WAITING_LINES = 10.0


def tokenize_sharded(
    rows: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    rules: TokenRules,
    *,
    cache: Path,
    rank: Rank,
    announce: Callable[[str], None],
) -> tuple[Dataset, TokenCounts]:
    """Tokens of all rows, in order, as columns input_ids, attention_mask and labels, each (tokens,) per row.

    Every rank must call it with the same rows. The result is the same for any number of ranks.
    """
    rows = rows.select_columns(rules.format.columns)
    blocks = cut_blocks(len(rows))
    folder = cache / "tokens" / content_key(rows, tokenizer, rules)
    shards = [folder / f"block-{index:05d}.arrow" for index in range(len(blocks))]
    found = sum(shard.exists() for shard in shards)
    if found == len(shards):
        announce(f"data       {len(rows):,} rows, tokens found in the cache")
    for index in range(rank.local_rank, len(blocks), rank.local_world_size):
        if not shards[index].exists():
            block = rows.select(blocks[index]).to_list()
            write_table(tokenize_rows(block, tokenizer, rules), shards[index])
    _wait_for(shards, announce)
    tokens = concatenate_datasets([Dataset.from_file(str(shard)) for shard in shards])
    return tokens.remove_columns("was_cut"), count(tokens, len(rows))


def cut_blocks(rows: int) -> list[range]:
    """Blocks of consecutive rows, at least SMALLEST_BLOCK long and at most about MOST_BLOCKS many."""
    size = max(SMALLEST_BLOCK, -(-rows // MOST_BLOCKS))
    return [range(start, min(start + size, rows)) for start in range(0, rows, size)]


def content_key(rows: Dataset, tokenizer: PreTrainedTokenizerBase, rules: TokenRules) -> str:
    """A name made of the rows' bytes and of all else that decides their tokens."""
    digest = hashlib.blake2b(digest_size=16)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    tokenizer_text = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    special = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    settings = json.dumps({"version": VERSION, **asdict(rules)}, sort_keys=True)
    for text in (settings, special, tokenizer_text, str(tokenizer.chat_template)):
        digest.update(hashlib.blake2b(text.encode()).digest())
    for batch in rows.with_format("arrow").iter(4096):
        for column in batch.columns:
            digest.update(json.dumps(column.to_pylist(), ensure_ascii=False, default=str).encode())
    return digest.hexdigest()


def count(tokens: Dataset, rows: int) -> TokenCounts:
    """Totals over a tokenized data set that still has its was_cut column."""
    table = tokens.with_format("arrow")
    total = trained = cut = 0
    for batch in table.iter(4096):
        labels = pa.compute.list_flatten(batch["labels"])
        total += len(labels)
        trained += pa.compute.sum(pa.compute.greater_equal(labels, 0)).as_py() or 0
        cut += pa.compute.sum(batch["was_cut"]).as_py() or 0
    return TokenCounts(rows=rows, kept=len(tokens), cut=cut, tokens=total, trained=trained)


def write_table(table: pa.Table, path: Path) -> None:
    """Write an Arrow stream file in one step; readers see all of it or nothing."""
    with aside(path) as temporary, pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_stream(sink, SCHEMA) as stream:
        stream.write_table(table)


def _wait_for(shards: list[Path], announce: Callable[[str], None]) -> None:
    """Until the other ranks' shards are there. A rank that fails instead is its launcher's to notice, which ends this."""
    said = time.monotonic()
    while missing := [shard for shard in shards if not shard.exists()]:
        if time.monotonic() - said > SECONDS_BETWEEN_WAITING_LINES:
            said = time.monotonic()
            announce(f"data       waiting for {len(missing)} of {len(shards)} blocks of other ranks")
        time.sleep(POLL_SECONDS)
