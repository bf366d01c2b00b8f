"""Making a folder's shards, one for each block, by every rank that sees the folder; no process group, so no time-out.

Each rank takes blocks, its own first and then whichever nobody has: ranks of one node or of many, one run or several at once,
need not know of each other. What is taken is said by a lock on one byte of a file, which the kernel lifts when its holder
dies, so that a killed rank's block is taken over. Locks only save work: a shard is written aside, is the same whoever makes
it, and appears by its renaming.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pyarrow as pa

from lft.core.files import aside
from lft.core.rank import Rank
from lft.data.cache import full_disk_named
from lft.data.shard_format import BlockCounts

POLL_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
"""A block's holder may be suspended; after so long without a new shard, others make its block too. A block takes seconds."""

_COUNTS = b"lft"

MakeBlock = Callable[[int], tuple[pa.RecordBatch, BlockCounts]]


def shard_path(folder: Path, index: int) -> Path:
    """The shard of a block."""
    return folder / f"block-{index:06d}.arrow"


def make_shards(folder: Path, blocks: int, make: MakeBlock, rank: Rank, between: Callable[[int], None]) -> int:
    """Make the shards that are missing, with the others; returns when all are there. How many were made here.

    `between` is told the number of shards that are there before each block and each look at what the others do; what
    it raises ends the work, as does what `make` raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made, waiting_since, seen = 0, time.monotonic(), -1
    with _claims(folder / "claims") as take:
        missing = in_turn(blocks, rank)
        while missing := [index for index in missing if not shard_path(folder, index).exists()]:
            if blocks - len(missing) != seen:
                waiting_since, seen = time.monotonic(), blocks - len(missing)
            is_patient = time.monotonic() - waiting_since < PATIENCE_SECONDS
            done_here = _make_untaken(folder, missing, make, between, take if is_patient else _nobody_has_it)
            made += done_here
            if not done_here:
                between(blocks - len(missing))
                time.sleep(POLL_SECONDS)
    return made


def in_turn(blocks: int, rank: Rank) -> list[int]:
    """All blocks in the order in which a rank tries them: every world-size-th from its own number, then the next rank's."""
    return sorted(range(blocks), key=lambda index: (index - rank.rank) % rank.world_size)


def write_shard(path: Path, batch: pa.RecordBatch, counts: BlockCounts) -> None:
    """Write one shard in one step; readers see all of it or nothing."""
    schema = batch.schema.with_metadata({_COUNTS: counts.to_json()})
    with (
        full_disk_named(path),
        aside(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as stream,
    ):
        stream.write_batch(batch.replace_schema_metadata(schema.metadata))


def read_count(folder: Path, index: int) -> BlockCounts:
    """What became of a block, from the head of its shard."""
    with pa.memory_map(str(shard_path(folder, index))) as source, pa.ipc.open_stream(source) as stream:
        return BlockCounts.from_json(stream.schema.metadata[_COUNTS])


def map_shards(folder: Path, blocks: int) -> list[pa.RecordBatch]:
    """All shards, memory-mapped: what is not touched is not in memory."""
    batches = []
    for index in range(blocks):
        with pa.ipc.open_stream(pa.memory_map(str(shard_path(folder, index)))) as stream:
            batches.append(stream.read_next_batch())
    return batches


def _make_untaken(
    folder: Path, missing: Iterable[int], make: MakeBlock, between: Callable[[int], None], take: "Take"
) -> int:
    """Make each of these blocks that nobody else holds; how many."""
    made = 0
    for index in missing:
        path = shard_path(folder, index)
        if path.exists():
            continue
        with take(index) as is_mine:
            if is_mine and not path.exists():  # its holder may have finished between the two looks
                between(sum(entry.name.startswith("block-") for entry in os.scandir(folder)))
                write_shard(path, *make(index))
                made += 1
    return made


Take = Callable[[int], AbstractContextManager[bool]]


@contextmanager
def _claims(path: Path) -> Iterator[Take]:
    """A way to take blocks: yields whether it could be had.

    POSIX locks are those that network file systems support best; where one has none at all, every block is ours.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    @contextmanager
    def take(index: int) -> Iterator[bool]:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
        except (BlockingIOError, PermissionError):
            yield False
            return
        except OSError:
            yield True
            return
        try:
            yield True
        finally:
            fcntl.lockf(file, fcntl.LOCK_UN, 1, index)

    try:
        yield take
    finally:
        os.close(file)


@contextmanager
def _nobody_has_it(_index: int) -> Iterator[bool]:
    yield True
