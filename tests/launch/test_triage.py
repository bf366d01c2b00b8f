"""Whose error is shown: the cause, not its victims, and one error of many ranks once."""

from pathlib import Path

import pytest

from lft.core.errors import OutOfMemoryError
from lft.core.order import WorkerReport
from lft.core.run_dir import Attempt
from lft.launch.ranks import Exit
from lft.launch.supervisor import Ended
from lft.launch.triage import find_failure

OOM = OutOfMemoryError("out of memory")


def attempt_with(folder: Path, errors: dict[int, BaseException]) -> Attempt:
    """An attempt whose ranks failed with these errors, in this order."""
    attempt = Attempt(folder / "attempt-0")
    for moment, (rank, error) in enumerate(errors.items(), start=1):
        report = WorkerReport.of_failure(rank, "training", error, "Traceback")
        report.model_copy(update={"time_ns": moment}).save(attempt.failure(rank))
    return attempt


@pytest.mark.parametrize(
    ("errors", "codes", "who", "stopped", "message"),
    [
        ({1: ValueError("a"), 0: ValueError("b")}, [64, 64], "rank 1", 1, "a"),
        ({0: RuntimeError("Connection reset by peer"), 1: ValueError("a")}, [64, 64], "rank 1", 1, "a"),
        ({0: RuntimeError("NCCL communicator was aborted"), 1: OOM}, [64, 67], "rank 1", 1, "out of memory"),
        ({0: RuntimeError("Broken pipe"), 1: RuntimeError("Socket Timeout")}, [64, 64], "rank 0", 1, "Broken pipe"),
        ({0: RuntimeError("Connection closed by peer")}, [64, -9], "rank 1", 1, "was killed by SIGKILL"),
        ({2: OOM, 0: OOM, 1: OOM}, [67, 67, 67], "ranks 0-2", 0, "out of memory"),
        ({2: OOM, 0: OOM, 1: ValueError("a")}, [67, 64, 67], "ranks 0, 2", 1, "out of memory"),
        ({}, [1, 1, 1, 1], "ranks 0-3", 0, "left with exit code 1 and no report"),
        ({}, [0, 1], "rank 1", 1, "left with exit code 1 and no report"),
        ({}, [-6, -11], "rank 1", 1, "was killed by SIGSEGV"),
    ],
)
def test_the_rank_that_caused_the_failure_is_named(
    errors: dict[int, BaseException], codes: list[int], who: str, stopped: int, message: str, tmp_path: Path
) -> None:
    exits = [Exit(rank, code) for rank, code in enumerate(codes)]
    failure = find_failure(Ended(exits, None, {}), attempt_with(tmp_path, errors))
    assert failure is not None
    assert (failure.who(), failure.stopped) == (who, stopped)
    assert failure.report.message.startswith(message)


def test_a_rank_killed_because_of_another_is_neither_blamed_nor_counted_as_failed(tmp_path: Path) -> None:
    exits = [Exit(0, -9, by_us=True), Exit(1, 1)]
    failure = find_failure(Ended(exits, None, {}), attempt_with(tmp_path, {}))
    assert failure is not None
    assert (failure.who(), failure.stopped) == ("rank 1", 1)


def test_a_damaged_report_counts_as_none(tmp_path: Path) -> None:
    attempt = attempt_with(tmp_path, {0: ValueError("a")})
    attempt.failure(0).write_text('{"ok": fal')
    failure = find_failure(Ended([Exit(0, 64)], None, {}), attempt)
    assert failure is not None
    assert failure.report.message == "left with exit code 64 and no report"


def test_a_report_keeps_the_exit_code_of_its_error(tmp_path: Path) -> None:
    attempt = attempt_with(tmp_path, {0: OOM, 1: ValueError("a")})
    loaded = [WorkerReport.load(attempt.failure(rank)) for rank in (0, 1)]
    assert [report.exit_code for report in loaded] == [67, 64]
    assert [report.error_class for report in loaded] == ["OutOfMemoryError", "ValueError"]


def test_ranks_that_are_done_or_saved_are_no_failure(tmp_path: Path) -> None:
    assert find_failure(Ended([Exit(0, 0), Exit(1, 75)], None, {}), attempt_with(tmp_path, {})) is None
