"""A hang is noticed by beats alone, never by a slow start, and the rank that holds up the others is named."""

import faulthandler
import time
from pathlib import Path

import pytest

from lft.core.beat import Beat, Heart
from lft.core.run_dir import Attempt
from lft.launch import hang
from lft.launch.hang import LOADING_SECONDS, SHORTEST_SECONDS, HangWatch, find_odd_one, is_waiting, main_stack

DUMP = """Thread 0x01 (most recent call first):
  File "threading.py", line 3 in wait

Current thread 0x02 (most recent call first):
  File "{place}", line 7 in {call}
  File "lft/train/worker.py", line 80 in main
some other output
"""
IN_A_SUM = DUMP.format(place="site-packages/torch/distributed/distributed_c10d.py", call="all_reduce")
IN_BACKWARD = DUMP.format(place="site-packages/torch/autograd/graph.py", call="_engine_run_backward")
IN_DATA = DUMP.format(place="lft/train/batches.py", call="__call__")


def watch_of(folder: Path, timeout_seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> tuple[HangWatch, Attempt]:
    """A watch that looks at the files each time it is asked."""
    monkeypatch.setattr(hang, "LOOK_SECONDS", 0.0)
    return HangWatch(Attempt(folder / "attempt-0"), timeout_seconds), Attempt(folder / "attempt-0")


def test_a_slow_start_is_no_hang_whatever_the_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, attempt = watch_of(tmp_path, 1.0, monkeypatch)
    hearts = [Heart(attempt.beat(rank)) for rank in range(2)]
    watch.silent_seconds([0, 1])
    assert watch.limit_seconds([0, 1]) == LOADING_SECONDS
    for heart in hearts:
        heart.beat("training", 0, 10)
    hearts[0].beat("training", 1, 10)
    watch.silent_seconds([0, 1])
    assert watch.limit_seconds([0, 1]) == LOADING_SECONDS, "rank 1 has not done a step"
    hearts[1].beat("training", 1, 10)
    watch.silent_seconds([0, 1])
    assert watch.limit_seconds([0, 1]) == 1.0


def test_the_automatic_timeout_is_learnt_from_the_slowest_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, attempt = watch_of(tmp_path, None, monkeypatch)
    attempt.beat(0).parent.mkdir(parents=True)
    moments = {1: 100.0, 2: 101.0, 5: 161.0, 6: 163.0}  # 20 seconds a step from 2 to 5
    for step, seconds in moments.items():
        beat = Beat(stage="training", step=step, total=10, time_ns=int(seconds * 1e9))
        attempt.beat(0).write_text(beat.model_dump_json())
        watch.silent_seconds([0])
        if step == 2:
            assert watch.limit_seconds([0]) == SHORTEST_SECONDS
    assert watch.limit_seconds([0]) == pytest.approx(400.0)


def test_one_rank_that_goes_on_keeps_the_run_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, attempt = watch_of(tmp_path, 1.0, monkeypatch)
    hearts = [Heart(attempt.beat(rank)) for rank in range(2)]
    for heart in hearts:
        heart.beat("answering", 1, 10)
    watch.silent_seconds([0, 1])
    started = time.monotonic()
    for step in range(2, 5):
        hearts[1].beat("answering", step, 10)
        assert watch.silent_seconds([0, 1]) < 0.5
        assert watch.silent_seconds([0]) <= time.monotonic() - started + 0.5


def test_a_beat_that_is_half_written_or_missing_is_no_news(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch, attempt = watch_of(tmp_path, 1.0, monkeypatch)
    Heart(attempt.beat(0)).beat("training", 3, 10)
    watch.silent_seconds([0, 1])
    attempt.beat(0).write_text('{"stage": "tra')
    watch.silent_seconds([0, 1])
    assert {rank: beat.step for rank, beat in watch.beats.items()} == {0: 3}


def test_a_shorter_beat_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    heart = Heart(tmp_path / "rank-0.json")
    heart.beat("joining the other ranks", 123_456, 1_000_000)
    heart.beat("x")
    beat = Beat.load(tmp_path / "rank-0.json")
    assert beat is not None
    assert (beat.stage, beat.step, beat.total) == ("x", None, None)


@pytest.mark.parametrize(
    ("states", "stacks", "steps", "odd", "why"),
    [
        ("SS", (IN_BACKWARD, IN_DATA), (5, 5), 1, "the others wait for it"),
        ("SS", (IN_DATA, IN_A_SUM), (5, 5), 0, "the others wait for it"),
        ("ST", (IN_BACKWARD, ""), (5, 5), 1, "its process is stopped (state T"),
        ("SD", (IN_A_SUM, IN_DATA), (5, 5), 1, "(state D)"),
        ("SSS", (IN_A_SUM, IN_A_SUM, IN_A_SUM), (5, 4, 5), 1, "heard of least recently"),
        ("S", (IN_DATA,), (5,), 0, "its stack is below"),
    ],
)
def test_the_rank_that_holds_up_the_others_is_named(
    states: str, stacks: tuple[str, ...], steps: tuple[int, ...], odd: int, why: str
) -> None:
    beats = {rank: Beat(stage="training", step=step, time_ns=rank) for rank, step in enumerate(steps)}
    found = find_odd_one(beats, dict(enumerate(states)), dict(enumerate(stacks)), 130.0)
    assert (found.rank, found.beat) == (odd, beats[odd])
    assert why in found.why


def test_the_main_threads_stack_is_found_in_a_real_dump(tmp_path: Path) -> None:
    path = tmp_path / "dump"
    with path.open("w") as stream:
        faulthandler.dump_traceback(stream, all_threads=True)
    stack = main_stack("noise before\n" + path.read_text())
    assert stack.splitlines()[0].strip().endswith("in test_the_main_threads_stack_is_found_in_a_real_dump")
    assert main_stack("no dump") == ""
    assert not is_waiting(stack)
