"""Blocks shared out over processes that meet in a folder only."""

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pytest

from lft.core.rank import Rank
from lft.data import shards
from lft.data.shard_format import BlockCounts
from lft.data.shards import in_turn, make_shards, map_shards, read_count, shard_path, write_shard

SPAWN = multiprocessing.get_context("fork")
BLOCKS = 12
DEADLINE_SECONDS = 30.0


def block(index: int) -> tuple[pa.RecordBatch, BlockCounts]:
    """A block whose content follows from its number."""
    batch = pa.record_batch({"where": pa.array(range(index * 10, index * 10 + 10))})
    return batch, BlockCounts(rows=11, kept=10, empty=1, bad=((0, index, "is odd"),), digest=f"{index:x}")


def make(folder: Path, rank: int, world_size: int, log: Path, pause: Callable[[int], None] = lambda _: None) -> None:
    """One rank; writes which blocks it makes."""

    def logged(index: int) -> tuple[pa.RecordBatch, BlockCounts]:
        with log.open("a") as stream:
            stream.write(f"{index}\n")
        pause(index)
        return block(index)

    make_shards(folder, BLOCKS, logged, Rank(rank=rank, world_size=world_size), lambda _: None)


def run_ranks(folder: Path, world_size: int, pause: Callable[[int], None] = lambda _: None) -> list[list[int]]:
    """All ranks as processes; the blocks each made."""
    logs = [folder.parent / f"{folder.name}-{world_size}-{rank}.log" for rank in range(world_size)]
    processes = [
        SPAWN.Process(target=make, args=(folder, rank, world_size, log, pause)) for rank, log in enumerate(logs)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(DEADLINE_SECONDS)
    assert [process.exitcode for process in processes] == [0] * world_size
    return [[int(line) for line in log.read_text().splitlines()] if log.exists() else [] for log in logs]


def digests(folder: Path) -> dict[str, str]:
    """Every shard's name and digest."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("block-*")}


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds; fails after the deadline."""
    until = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_any_number_of_processes_makes_every_block_once_and_the_same_bytes(tmp_path: Path) -> None:
    for world_size in (1, 2, 3):
        made = run_ranks(tmp_path / str(world_size), world_size)
        assert sorted(chain.from_iterable(made)) == list(range(BLOCKS))
        assert digests(tmp_path / str(world_size)) == digests(tmp_path / "1")
        assert len(digests(tmp_path / "1")) == BLOCKS


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    for index in (0, 3, 7):
        tmp_path.joinpath("tokens").mkdir(exist_ok=True)
        write_shard(shard_path(tmp_path / "tokens", index), *block(index))
    made = run_ranks(tmp_path / "tokens", 2)
    assert sorted(chain.from_iterable(made)) == [index for index in range(BLOCKS) if index not in (0, 3, 7)]


def test_each_rank_begins_with_its_own_blocks_and_goes_on_with_those_of_the_others() -> None:
    assert in_turn(6, Rank(rank=1, world_size=3)) == [1, 4, 2, 5, 0, 3]
    assert in_turn(3, Rank()) == [0, 1, 2]


def test_the_block_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    folder, log = tmp_path / "tokens", tmp_path / "victim.log"
    victim = SPAWN.Process(target=make, args=(folder, 0, 1, log, lambda index: time.sleep(3600 * (index == 2))))
    victim.start()
    wait_for(lambda: log.exists() and log.read_text().split() == ["0", "1", "2"])
    survivor_log = tmp_path / "survivor.log"
    survivor = SPAWN.Process(target=make, args=(folder, 1, 2, survivor_log))
    survivor.start()
    wait_for(lambda: len(digests(folder)) == BLOCKS - 1)
    assert survivor.is_alive()
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    survivor.join(DEADLINE_SECONDS)
    assert survivor.exitcode == 0
    made = [int(line) for line in survivor_log.read_text().split()]
    assert sorted(made) == list(range(2, BLOCKS))
    assert made[-1] == 2
    victim.join(DEADLINE_SECONDS)


def test_a_suspended_process_holds_nobody_up_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "PATIENCE_SECONDS", 0.5)
    folder, log = tmp_path / "tokens", tmp_path / "suspended.log"
    suspended = SPAWN.Process(target=make, args=(folder, 0, 1, log, lambda index: time.sleep(0.5 * (index == 1))))
    suspended.start()
    assert suspended.pid is not None
    wait_for(lambda: log.exists() and log.read_text().split() == ["0", "1"])
    os.kill(suspended.pid, signal.SIGSTOP)
    try:
        make(folder, 1, 2, tmp_path / "other.log")
        assert len(digests(folder)) == BLOCKS
    finally:
        os.kill(suspended.pid, signal.SIGCONT)
    suspended.join(DEADLINE_SECONDS)
    assert suspended.exitcode == 0
    assert digests(folder) == digests_of_one(tmp_path / "alone")


def digests_of_one(folder: Path) -> dict[str, str]:
    """What one process makes."""
    make(folder, 0, 1, folder.parent / "one.log")
    return digests(folder)


def test_shards_are_read_back_with_the_counts_of_their_blocks(tmp_path: Path) -> None:
    make(tmp_path / "tokens", 0, 1, tmp_path / "log")
    counts = [read_count(tmp_path / "tokens", index) for index in range(BLOCKS)]
    assert counts == [block(index)[1] for index in range(BLOCKS)]
    rows = [where for batch in map_shards(tmp_path / "tokens", BLOCKS) for where in batch["where"].to_pylist()]
    assert rows == list(range(BLOCKS * 10))


def test_an_error_in_one_block_is_the_caller_s_and_leaves_the_other_shards(tmp_path: Path) -> None:
    def fails(index: int) -> tuple[pa.RecordBatch, BlockCounts]:
        if index == 4:
            raise ValueError("row 44 is bad")
        return block(index)

    with pytest.raises(ValueError, match="row 44 is bad"):
        make_shards(tmp_path / "tokens", BLOCKS, fails, Rank(), lambda _: None)
    assert len(digests(tmp_path / "tokens")) == 4
    assert not [path for path in (tmp_path / "tokens").iterdir() if path.name.startswith(".")]
