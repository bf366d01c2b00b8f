"""Starting ranks and watching them until all have left: none hangs for ever, none is orphaned."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from lft.core.errors import DONE, SAVED
from lft.core.rank import LAUNCHER_PID, clean_environment

POLL_SECONDS = 0.05
GATHER_SECONDS = 5.0
"""After a rank failed: how long the others may take to report what they saw, before they are killed."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a rank left: its exit code, or minus the signal's number.

    `by_us`: it was killed because of another. `too_early`: it left as if done, without having reported its job.
    """

    rank: int
    code: int
    by_us: bool
    too_early: bool = False

    @property
    def is_fine(self) -> bool:
        """Done, or saved because it was asked to stop."""
        return self.code in (DONE, SAVED) and not self.too_early


class StopSignals:
    """Stop signals while the ranks run: the first asks them to save and stop, the second ends them at once.

    SIGHUP counts where the output goes to the terminal that hangs up; a run whose output goes elsewhere goes on.
    """

    def __init__(self) -> None:
        self.received: list[int] = []

    @contextmanager
    def listening(self) -> Iterator["StopSignals"]:
        """Catch the signals, and give them back to whom they belonged."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        hang_up = self._note if sys.stdout.isatty() else signal.SIG_IGN
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
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
    reports: list[Path] = field(default_factory=list)
    """Where each rank reports its job, before it leaves."""

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End those that have not left, whatever they are doing."""
        for process in self.running():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with whatever the rank started itself
        for process in self.processes:
            process.wait()

    def start(self, argv: list[str], environment: dict[str, str], log: Path, report: Path) -> None:
        """Start the next rank in a session of its own, so that Ctrl-C reaches only the launcher; output goes to `log`.

        The rank is done when it has written `report` and left.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            process = subprocess.Popen(
                argv,
                env=clean_environment() | environment | {LAUNCHER_PID: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        self.reports.append(report)

    def running(self) -> list[subprocess.Popen[bytes]]:
        """Those that have not left."""
        return [process for process in self.processes if process.poll() is None]

    def send(self, number: signal.Signals) -> None:
        """Signal every rank that is still there."""
        for process in self.running():
            process.send_signal(number)

    def exits(self, too_slow: Collection[subprocess.Popen[bytes]] = ()) -> list[Exit]:
        """How those that have left did so; `too_slow` are those that had to be killed."""
        return [
            Exit(rank, code, by_us=process in too_slow, too_early=code == DONE and not self.reports[rank].exists())
            for rank, process in enumerate(self.processes)
            if (code := process.poll()) is not None
        ]


def supervise(
    ranks: Ranks, stop: StopSignals, grace_seconds: Callable[[], float], on_tick: Callable[[], None]
) -> list[Exit]:
    """Wait until all ranks have left, and say how.

    When one fails the others get GATHER_SECONDS; when a stop is asked for they get the `grace_seconds` of that moment, or
    nothing after a second signal. Then they are killed.
    """
    kill_at = float("inf")
    asked = failed = False
    while ranks.running():
        on_tick()
        now = time.monotonic()
        if not failed and not all(exit_.is_fine for exit_ in ranks.exits()):
            failed, kill_at = True, min(kill_at, now + GATHER_SECONDS)
        if stop.received and not asked:
            asked, kill_at = True, min(kill_at, now + grace_seconds())
            ranks.send(signal.SIGTERM)
        if now > kill_at or len(stop.received) > 1:
            break
        time.sleep(POLL_SECONDS)
    too_slow = ranks.running()
    ranks.kill()
    on_tick()
    return ranks.exits(too_slow)
