"""Ranks that fail, hang, shout or will not stop: the launcher always ends, says who did it, and leaves no process behind.

The ranks are small scripts in real processes, and the signals are real ones.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lft.core.run_dir import Attempt
from lft.launch import stopping, supervisor
from lft.launch.hang import HangWatch
from lft.launch.outcome import Failure
from lft.launch.ranks import Exit, Ranks
from lft.launch.stopping import StopRequests
from lft.launch.supervisor import Watch, supervise
from lft.launch.triage import find_failure, is_cause

pytestmark = pytest.mark.timeout(60)

SETTLE_SECONDS = 0.5
SLACK_SECONDS = 5.0  # for a busy machine; everything the tests wait for takes far longer, or for ever
FOR_EVER = "time.sleep(1000)"
SAVE_AND_LEAVE = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); ready(); " + FOR_EVER
IGNORE = "signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); " + FOR_EVER
PRELUDE = """
import os, signal, sys, time
from pathlib import Path
folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
def ready():
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # as a real rank, once it listens
    (folder / f"ready-{rank}").touch()
def wait_for(*ranks):
    while not all((folder / f"ready-{other}").exists() for other in ranks):
        time.sleep(0.01)
def done():
    report = folder / "reports" / f"train-rank-{rank}.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text("{}")
def fail(error, code):
    from lft.core.order import WorkerReport
    from lft.core.run_dir import Attempt
    report = WorkerReport.of_failure(rank, "training", error, f"Traceback of rank {rank}")
    report.save(Attempt(folder).failure(rank))
    sys.exit(code)
"""


@dataclass
class Job:
    """How a job of small scripts ended."""

    exits: list[Exit]
    seconds: float
    pids: list[int]
    failure: Failure | None = None
    codes: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.codes = [exit_.code for exit_ in self.exits]


def run_ranks(
    folder: Path, *scripts: str, signals: tuple[signal.Signals, ...] = (), grace_seconds: float = 1000.0
) -> Job:
    """Run a script as each rank. Once all are ready, send this process each of `signals`, one a tick."""
    folder.mkdir(exist_ok=True)
    attempt, to_send = Attempt(folder), list(signals)

    def on_tick() -> None:
        if to_send and all((folder / f"ready-{rank}").exists() for rank in range(len(scripts))):
            os.kill(os.getpid(), to_send.pop(0))

    started = time.monotonic()
    with Ranks() as ranks, StopRequests(folder / "stop.json").listening() as stop:
        for rank, script in enumerate(scripts):
            argv = [sys.executable, "-c", PRELUDE + script, str(folder)]
            environment = {"RANK": str(rank)}
            ranks.start(rank, argv, environment, log=attempt.log(rank), report=attempt.report("train", rank))
        pids = [ranks.pid(rank) for rank in range(len(scripts))]
        ended = supervise(ranks, watch(attempt, stop, grace_seconds=lambda: grace_seconds, on_tick=on_tick))
        assert gone(pids), "no rank is left even before the end of the block"
    return Job(ended.exits, time.monotonic() - started, pids, find_failure(ended, attempt))


def watch(attempt: Attempt, stop: StopRequests, **changes: Any) -> Watch:
    """What the agent watches."""
    usual: dict[str, Any] = {
        "stop": stop,
        "hang": HangWatch(attempt, None),
        "grace_seconds": lambda: 1.0,
        "is_cause": lambda exit_: is_cause(exit_, attempt),
        "on_tick": lambda: None,
    }
    return Watch(**usual | changes)


def gone(pids: list[int]) -> bool:
    """Whether none of these processes exists."""
    for pid in pids:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        return False
    return True


def test_ranks_that_are_done_are_no_failure(tmp_path: Path) -> None:
    ended = run_ranks(tmp_path / "attempt-0", "print('hello'); done()", "sys.exit(75)")
    assert ended.exits == [Exit(0, 0), Exit(1, 75)]
    assert ended.failure is None
    assert Attempt(tmp_path / "attempt-0").log(0).read_text() == "hello\n"


@pytest.mark.parametrize(
    ("other", "others_code"), [(FOR_EVER, -9), (IGNORE, -9), ("wait_for(1); fail(ValueError('Broken pipe'), 64)", 64)]
)
@pytest.mark.parametrize("when", ["", "time.sleep(0.3); "], ids=["at once", "later"])
def test_a_rank_that_fails_ends_the_others_soon_and_is_named(
    when: str, other: str, others_code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if others_code == -9:
        monkeypatch.setattr(supervisor, "SETTLE_SECONDS", SETTLE_SECONDS)
    crash = when + "ready(); fail(RuntimeError('tensors do not match'), 64)"
    ended = run_ranks(tmp_path / "attempt-0", other, crash)
    assert ended.codes == [others_code, 64]
    assert ended.seconds < SETTLE_SECONDS + SLACK_SECONDS
    assert ended.failure is not None
    assert (ended.failure.who(), ended.failure.stopped) == ("rank 1", 1)
    assert (ended.failure.report.message, ended.failure.report.stage) == ("tensors do not match", "training")


def test_a_rank_that_fails_after_the_others_are_done_is_a_failure(tmp_path: Path) -> None:
    ended = run_ranks(
        tmp_path / "attempt-0", "done(); ready()", "wait_for(0); time.sleep(0.2); fail(OSError('disk full'), 64)"
    )
    assert ended.codes == [0, 64]
    assert ended.failure is not None
    assert ended.failure.report.message == "disk full"


@pytest.mark.parametrize(
    ("script", "message", "code"),
    [
        (
            "os.kill(os.getpid(), signal.SIGKILL)",
            "was killed by SIGKILL",
            137,
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV", 139),
        ("sys.exit(9)", "left with exit code 9 and no report", 9),
    ],
)
def test_a_rank_that_leaves_without_a_word_is_named_with_what_its_log_can_tell(
    script: str, message: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SETTLE_SECONDS", SETTLE_SECONDS)
    talk = "print('\\n'.join(f'line {n}' for n in range(100)), flush=True); "
    ended = run_ranks(tmp_path / "attempt-0", FOR_EVER, talk + script)
    assert ended.failure is not None
    assert (ended.failure.who(), ended.failure.report.message) == ("rank 1", message)
    assert ended.failure.report.exit_code == code
    told = ended.failure.log_tail.splitlines()
    assert told == ([] if code == 137 else [f"line {number}" for number in range(85, 100)])


def test_a_rank_that_was_hit_by_the_failure_of_another_is_not_blamed_for_it(tmp_path: Path) -> None:
    victim = "fail(ConnectionError('[gloo] Connection closed by peer [127.0.0.1]:4711'), 64)"
    cause = "wait_for(0); fail(MemoryError('no memory for 3 GB'), 67)"
    ended = run_ranks(tmp_path / "attempt-0", victim.replace("fail(", "ready(); fail(", 1), cause)
    assert ended.failure is not None
    assert (ended.failure.who(), ended.failure.report.message) == ("rank 1", "no memory for 3 GB")


def test_a_rank_that_the_collectives_abort_is_not_blamed_for_the_failure_of_another(tmp_path: Path) -> None:
    cause = "ready(); fail(MemoryError('no memory for 3 GB'), 67)"
    ended = run_ranks(tmp_path / "attempt-0", "wait_for(1); os.abort()", cause)
    assert ended.codes == [-signal.SIGABRT, 67]
    assert ended.failure is not None
    assert (ended.failure.who(), ended.failure.report.message) == ("rank 1", "no memory for 3 GB")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_every_rank_save_and_leave(number: signal.Signals, tmp_path: Path) -> None:
    ended = run_ranks(tmp_path / "attempt-0", SAVE_AND_LEAVE, SAVE_AND_LEAVE, signals=(number,))
    assert ended.exits == [Exit(0, 75), Exit(1, 75)]
    assert ended.failure is None


def test_a_rank_that_does_not_stop_is_killed_after_its_time_of_grace(tmp_path: Path) -> None:
    signals = (signal.SIGTERM,)
    ended = run_ranks(tmp_path / "attempt-0", IGNORE, SAVE_AND_LEAVE, signals=signals, grace_seconds=0.3)
    assert ended.exits == [Exit(0, -9, by_us=True), Exit(1, 75)]
    assert ended.seconds < 0.3 + SLACK_SECONDS
    assert ended.failure is not None
    assert (ended.failure.who(), ended.failure.report.message) == ("rank 0", "did not stop in time and was killed")


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)])
def test_a_second_ctrl_c_ends_everything_at_once(
    signals: tuple[signal.Signals, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "REPEAT_SECONDS", 0.0)
    ended = run_ranks(tmp_path / "attempt-0", IGNORE, IGNORE, signals=signals)
    assert ended.exits == [Exit(0, -9, by_us=True), Exit(1, -9, by_us=True)]
    assert ended.seconds < SLACK_SECONDS


def test_a_rank_that_fails_while_stopping_does_not_wait_for_the_whole_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "SETTLE_SECONDS", SETTLE_SECONDS)
    crash = "signal.signal(signal.SIGTERM, lambda *_: fail(OSError('disk full'), 64)); ready(); " + FOR_EVER
    ended = run_ranks(tmp_path / "attempt-0", IGNORE, crash, signals=(signal.SIGTERM,))
    assert ended.codes == [-9, 64]
    assert ended.seconds < SETTLE_SECONDS + SLACK_SECONDS


def test_a_rank_that_leaves_as_if_done_before_it_is_ends_the_run_and_is_named(tmp_path: Path) -> None:
    ended = run_ranks(tmp_path / "attempt-0", FOR_EVER, "os._exit(0)")
    assert ended.seconds < SETTLE_SECONDS + SLACK_SECONDS
    assert ended.exits == [Exit(0, -9, by_us=True), Exit(1, 0, too_early=True)]
    assert ended.failure is not None
    assert ended.failure.ranks == (1,)
    assert ended.failure.report.message == "left with exit code 0 before its job was done"
    assert ended.failure.report.exit_code == 64


def test_what_a_killed_rank_had_started_is_gone_too(tmp_path: Path) -> None:
    child = "import subprocess; child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])"
    child += "; (folder / 'child').write_text(str(child.pid)); ready(); " + FOR_EVER
    run_ranks(tmp_path / "attempt-0", child, "wait_for(0); os._exit(3)")
    grandchild = int((tmp_path / "attempt-0" / "child").read_text())
    deadline = time.monotonic() + SLACK_SECONDS
    while not gone([grandchild]) and not is_zombie(grandchild) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert gone([grandchild]) or is_zombie(grandchild)


def is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits for whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return False


def test_a_hang_up_does_not_stop_a_run_whose_output_goes_to_a_file(tmp_path: Path) -> None:
    script = "ready(); time.sleep(0.3); done()"
    ended = run_ranks(tmp_path / "attempt-0", script, signals=(signal.SIGHUP,))
    assert ended.exits == [Exit(0, 0)]


def test_a_rank_that_floods_its_output_is_not_held_up(tmp_path: Path) -> None:
    flood = "for _ in range(64): os.write(1, b'x' * 2**18); os.write(2, b'y' * 2**18)"
    ended = run_ranks(tmp_path / "attempt-0", flood, flood)
    assert ended.codes == [0, 0]
    assert Attempt(tmp_path / "attempt-0").log(1).stat().st_size == 2**25


def test_only_the_launcher_gets_what_is_typed_at_the_terminal(tmp_path: Path) -> None:
    script = "print(os.getsid(0) == os.getpid(), sys.stdin.read() == '')"
    run_ranks(tmp_path / "attempt-0", script)
    assert Attempt(tmp_path / "attempt-0").log(0).read_text() == "True True\n"


def test_a_later_job_of_an_attempt_writes_behind_the_log_of_the_earlier_one(tmp_path: Path) -> None:
    for word in ("train", "benchmark"):
        run_ranks(tmp_path / "attempt-0", f"print('{word}')")
    assert Attempt(tmp_path / "attempt-0").log(0).read_text() == "train\nbenchmark\n"


def test_an_error_of_the_launcher_itself_leaves_no_rank_behind(tmp_path: Path) -> None:
    ranks = Ranks()
    with pytest.raises(OSError, match="disk full"), ranks:
        watch_badly(ranks, tmp_path)
    assert gone([ranks.pid(rank) for rank in range(2)])


def watch_badly(ranks: Ranks, folder: Path) -> None:
    """Watch two ranks that never leave, with something that fails."""

    def on_tick() -> None:
        raise OSError("disk full")

    for rank in range(2):
        argv = [sys.executable, "-c", "import time; " + FOR_EVER]
        ranks.start(rank, argv, {}, log=folder / f"rank-{rank}.log", report=folder / f"report-{rank}.json")
    supervise(ranks, watch(Attempt(folder), StopRequests(folder / "stop.json"), on_tick=on_tick))


def test_signals_belong_to_their_owner_again_afterwards(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopRequests(tmp_path / "stop.json").listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == [signal.SIGTERM]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
