"""Reading a run from its folder: whether it is alive, who is apart, how fast it goes, and the ends of its logs."""

import json
import os
import time
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from lft.core.beat import Beat, Heart
from lft.core.errors import SettingsError
from lft.core.events import EventWriter
from lft.core.run_dir import RunDir
from lft.launch.follow import apart, existing_run, is_alive, read_beats, read_failures, read_status
from lft.launch.logs import LogTail, folded_problems, problems_in, start_of_last_lines
from lft.launch.pace import lines_backwards, pace_of, read_pace
from tests.runs import beat, end, fail, launcher_at, new_attempt

SECOND = 10**9


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A run's folder with its first attempt."""
    new_attempt(tmp_path / "out")
    return tmp_path / "out"


def test_a_run_is_alive_exactly_while_its_launcher_holds_the_lock(out: Path) -> None:
    run_dir = RunDir(out)
    assert not is_alive(run_dir)
    assert not (run_dir.run / "lock").exists(), "asking must write nothing"
    with launcher_at(out) as process:
        assert is_alive(run_dir)
        process.kill()
        process.wait()
        assert not is_alive(run_dir)


def test_asking_whether_a_run_is_alive_needs_no_right_to_write_and_leaves_the_lock_free(out: Path) -> None:
    lock = RunDir(out).run / "lock"
    lock.touch()
    lock.chmod(0o444)
    assert not is_alive(RunDir(out))
    lock.chmod(0o644)
    try:
        with FileLock(lock, timeout=0):
            assert is_alive(RunDir(out))
    except Timeout:
        pytest.fail("the lock was not given back")


@pytest.mark.parametrize("there", ["nothing", "a file", "an empty folder"])
def test_a_folder_that_is_no_run_is_refused(there: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if there == "a file":
        path.write_text("x")
    if there == "an empty folder":
        path.mkdir()
    with pytest.raises(SettingsError, match=r"x (is not a folder|holds no run)"):
        existing_run(path)


def beats(**changes: tuple[str, int | None, float]) -> dict[int, Beat]:
    """Eight ranks training at step 50 of 100, one second ago, but for `r3=(stage, step, seconds ago)`."""
    facts = dict.fromkeys(range(8), ("training", 50, 1.0)) | {int(key[1:]): value for key, value in changes.items()}
    return {
        rank: Beat(stage=stage, step=step, total=100, time_ns=100 * SECOND - int(ago * SECOND))
        for rank, (stage, step, ago) in facts.items()
    }


def test_ranks_in_step_are_not_apart_even_when_their_beats_are_a_step_and_a_second_apart() -> None:
    assert apart(beats(r3=("training", 49, 2.0)), 8) == ()


@pytest.mark.parametrize("fact", [("training", 40, 45.0), ("saving", None, 1.0), ("loading", None, 60.0)])
def test_a_rank_that_is_late_or_in_another_stage_is_apart(fact: tuple[str, int | None, float]) -> None:
    found = apart(beats(r3=fact), 8)
    assert [(each.rank, each.beat and each.beat.stage) for each in found] == [(3, fact[0])]


def test_a_rank_that_never_beat_is_apart_and_one_that_is_through_is_not() -> None:
    known = beats(r3=("training", 100, 60.0))
    assert [(each.rank, each.beat) for each in apart(known, 9)] == [(8, None)]


def test_when_all_wait_for_one_none_is_apart_for_being_old() -> None:
    """All beats of a run that hangs in a collective are equally old; how old is said once, for all."""
    assert apart({rank: Beat(stage="training", step=5, time_ns=0) for rank in range(8)}, 8) == ()


def test_the_beats_read_are_those_the_ranks_wrote(out: Path) -> None:
    attempt = RunDir(out).attempts()[0]
    for rank in (0, 1, 11):
        Heart(attempt.beat(rank)).beat("training", 3, 9)
    (attempt.beat(0).parent / "rank-2.json").write_text('{"stage": "tra')
    found = read_beats(attempt)
    assert {rank: (each.stage, each.step) for rank, each in found.items()} == dict.fromkeys((0, 1, 11), ("training", 3))


def step_line(step: int, when: float) -> bytes:
    """A step event of 200, at a time: a step has 1,000 tokens, of which 250 are trained, in 1,250 places."""
    work = {"tokens": 1000 * step, "trained_tokens": 250 * step, "places": 1250 * step, "flops": 3e12 * step}
    data = {"step": step, "total": 200, "seconds": when, "memory_bytes": 5 * 10**9, **work}
    return json.dumps({"writer": "rank-0", "kind": "step", "data": data, "time": when}).encode()


def event_line(kind: str, when: float, **data: object) -> bytes:
    """Any event."""
    return json.dumps({"writer": "rank-0", "kind": kind, "data": data, "time": when}).encode()


def test_speed_is_that_of_the_newest_minute_and_a_resumed_run_counts_only_its_own_steps() -> None:
    lines = [
        event_line("stage", 0.0, name="training"),
        event_line("total", 0.0, steps=200, peak_flops=1e13),
        step_line(101, 10.0),  # it went on from step 100, and its first steps were slow
        step_line(102, 100.0),
        event_line("log", 100.0, loss=0.5),
        step_line(162, 160.0),
        b'{"writer": "rank-0", "kind": "st',
    ]
    pace = pace_of(reversed(lines), started=0.0)
    assert (pace.stage, pace.step, pace.total, pace.loss) == ("training", 162, 200, 0.5)
    assert pace.tokens_per_second == pytest.approx(1000.0)
    assert pace.trained_tokens_per_second == pytest.approx(250.0)
    assert pace.padding == pytest.approx(0.2)
    assert pace.mfu == pytest.approx(0.3)
    assert pace.describe() == "1,000 tok/s (250 trained, 20 % padding)  MFU 30 %"
    assert pace.eta_seconds == pytest.approx(38.0)


def test_the_pace_of_a_stage_knows_nothing_of_the_stage_or_attempt_before(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.jsonl"
    writer = EventWriter(path)
    writer.write("stage", name="training")
    writer.write("log", loss=0.5)
    writer.write("step", step=9, total=9)
    started = time.time()
    assert (read_pace(path, 0.0).step, read_pace(path, started).step) == (9, None)
    writer.write("stage", name="answering")
    pace = read_pace(path, 0.0)
    assert (pace.stage, pace.step, pace.loss) == ("answering", None, None)
    writer.close()


def test_days_of_events_are_read_only_as_far_as_needed(tmp_path: Path) -> None:
    """A file of 64 GiB, all but its end a hole: reading it whole would not come back within the time limit."""
    path = tmp_path / "rank-0.jsonl"
    with path.open("wb") as stream:
        stream.truncate(2**36)
        stream.seek(0, os.SEEK_END)
        stream.write(b"\n" + event_line("stage", 1.0, name="training") + b"\n" + step_line(3, 2.0) + b"\n")
    assert (read_pace(path, 0.0).stage, read_pace(path, 0.0).step) == ("training", 3)
    assert LogTail(path, start_of_last_lines(path, 1)).new_lines() == [step_line(3, 2.0).decode()]


@pytest.mark.parametrize("text", [b"", b"\n", b"a", b"a\n", b"a\nb", b"\n\na\n", b"x" * 200_000 + b"\ny\n" * 3])
def test_lines_backwards_are_the_lines(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(text)
    assert list(lines_backwards(tmp_path / "x"))[::-1] == text.split(b"\n")


@pytest.mark.parametrize("end_of_file", ["", "\n"])
@pytest.mark.parametrize("count", [1, 2, 7, 9999, 20000])
def test_the_last_lines_are_found_whatever_the_file_ends_with(count: int, end_of_file: str, tmp_path: Path) -> None:
    lines = [f"line {number} " + "é" * (number % 50) for number in range(10_000)]
    path = tmp_path / "rank-0.log"
    path.write_text("\n".join(lines) + end_of_file)
    assert LogTail(path, start_of_last_lines(path, count)).new_lines(to_the_end=True) == lines[-count:]


def test_a_tail_gives_each_line_once_when_it_is_whole_and_the_rest_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.log"
    tail = LogTail(path)
    assert tail.new_lines() == []
    with path.open("a") as stream:
        stream.write("one\ntw")
        stream.flush()
        assert tail.new_lines() == ["one"]
        stream.write("o\n\nthree")
        stream.flush()
        assert tail.new_lines() == ["two", ""]
    assert tail.new_lines(to_the_end=True) == ["three"]
    assert tail.new_lines(to_the_end=True) == []


TRACEBACK = """Traceback (most recent call last):
  File "a.py", line 1, in inner
    raise KeyError("x")
KeyError: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "a.py", line 2, in outer
    f()
    ^^^
ValueError: no layer named x"""
WARNING = "/lib/x.py:3: UserWarning: slow\n  warnings.warn('slow')"


def test_a_traceback_is_one_block_with_what_caused_it_and_other_lines_are_left_out() -> None:
    text = f"step 1\n{WARNING}\nstep 2\n  indented\n{TRACEBACK}\nall is well\nFATAL: disk\n"
    assert list(problems_in(text.split("\n"))) == [WARNING, TRACEBACK, "FATAL: disk"]


def test_the_same_problem_of_several_ranks_is_folded_whatever_the_time_of_day(out: Path) -> None:
    attempt = RunDir(out).attempts()[0]
    for rank in range(4):
        prefixed = "\n".join(f"[rank{rank}]: {line}" for line in TRACEBACK.split("\n"))
        attempt.log(rank).write_text(f"hello\n[W1122 10:00:0{rank}.5 x.cpp] Warning: slow\n{prefixed}\nbye {rank}\n")
    attempt.log(4).write_text("CRITICAL: other\n")
    assert list(folded_problems(attempt, [0, 1, 2, 3, 4]).items()) == [
        ("[W1122 10:00:00.5 x.cpp] Warning: slow", [0, 1, 2, 3]),
        (TRACEBACK, [0, 1, 2, 3]),
        ("CRITICAL: other", [4]),
    ]


def test_failures_are_read_causes_first_and_a_damaged_one_is_left_out(out: Path) -> None:
    attempt = RunDir(out).attempts()[0]
    fail(attempt, 0, "Connection closed by peer", is_victim=True, time_ns=1)
    fail(attempt, 2, "late", time_ns=3)
    fail(attempt, 1, "early", time_ns=2)
    attempt.failure(3).write_text("{")
    assert [report.rank for report in read_failures(attempt)] == [1, 2, 0]


def test_eight_thousand_ranks_are_read_and_the_one_apart_is_found(out: Path) -> None:
    attempt = RunDir(out).attempts()[0]
    attempt.order("train").write_text('{"world_size": 8192}')
    for rank in range(8192):
        beat(attempt, rank, "training", 7, age_seconds=99.0 if rank == 5000 else 1.0)
    progress = read_status(RunDir(out)).progress
    assert progress is not None
    assert [each.rank for each in progress.apart] == [5000]
    assert (progress.stage, progress.step, progress.total) == ("training", 7, 100)


def test_an_attempt_whose_launcher_was_killed_is_told_from_one_that_ended(out: Path) -> None:
    end(RunDir(out).attempts()[0], 130, stopped="stopped")
    new_attempt(out)
    beat(RunDir(out).attempts()[1], 0, "training", 12)
    status = read_status(RunDir(out))
    assert [attempt.state for attempt in status.attempts] == ["gone", "ended"]
    assert status.progress is not None
    assert status.progress.step == 12
