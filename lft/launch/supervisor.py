"""Starting ranks and watching them until all have left: none hangs for ever, none is orphaned."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from lft.core.errors import DONE, SAVED
from lft.core.rank import clean_environment

POLL_SECONDS = 0.05
GATHER_SECONDS = 5.0
"""After a rank failed: how long the others may take to report what they saw, before they are killed."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a rank left: its exit code, or minus the signal's number; `by_us` when it was killed because of another."""

    rank: int
    code: int
    by_us: bool


class StopSignals:
    """SIGINT and SIGTERM while the ranks run: the first asks them to save and stop, the second ends them at once."""

    def __init__(self) -> None:
        self.received: list[int] = []

    @contextmanager
    def listening(self) -> Iterator["StopSignals"]:
        """Catch the signals, and give them back to whom they belonged."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received.append(number)


@dataclass(slots=True)
class Ranks:
    """The processes of one job, by rank; none outlives the `with` block."""

    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> list[int]:
        """End those that have not left, whatever they are doing, and return every rank's exit code."""
        for process in self.running():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with whatever the rank started itself
        return [process.wait() for process in self.processes]

    def start(self, argv: list[str], environment: dict[str, str], log: Path) -> None:
        """Start the next rank in a session of its own, so that Ctrl-C reaches only the launcher; output goes to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            process = subprocess.Popen(
                argv,
                env=clean_environment() | environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)

    def running(self) -> list[subprocess.Popen[bytes]]:
        """Those that have not left."""
        return [process for process in self.processes if process.poll() is None]

    def send(self, number: signal.Signals) -> None:
        """Signal every rank that is still there."""
        for process in self.running():
            process.send_signal(number)

    def failed(self) -> bool:
        """Whether any rank left otherwise than done or saved."""
        return any(process.poll() not in (None, DONE, SAVED) for process in self.processes)


def supervise(ranks: Ranks, stop: StopSignals, grace_seconds: float, on_tick: Callable[[], None]) -> list[Exit]:
    """Wait until all ranks have left, and say how.

    When one fails the others get GATHER_SECONDS; when a stop is asked for they get `grace_seconds`, or nothing after a
    second signal. Then they are killed.
    """
    kill_at = float("inf")
    asked = failed = False
    while ranks.running():
        on_tick()
        now = time.monotonic()
        if ranks.failed() and not failed:
            failed, kill_at = True, min(kill_at, now + GATHER_SECONDS)
        if stop.received and not asked:
            asked, kill_at = True, min(kill_at, now + grace_seconds)
            ranks.send(signal.SIGTERM)
        if now > kill_at or len(stop.received) > 1:
            break
        time.sleep(POLL_SECONDS)
    too_slow = ranks.running()
    codes = ranks.kill()
    on_tick()
    return [Exit(rank, code, by_us=ranks.processes[rank] in too_slow) for rank, code in enumerate(codes)]
