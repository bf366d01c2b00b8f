"""The rank processes of one node: started, signalled, and ended with everything they have started themselves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from lft.core.errors import DONE, SAVED
from lft.core.hardware import out_of_memory_kills
from lft.core.rank import LAUNCHER_PID, clean_environment
from lft.core.stop_signals import blocked

POLL_SECONDS = 0.05
DUMP_SECONDS = 3.0
"""How long ranks may take to write their stacks; faulthandler needs milliseconds, a busy machine more."""
# Reads a process group a line; "done" ends it. The end of its input without that means that the launcher was killed:
# ranks die with it by themselves (PDEATHSIG), what they have started does not.
GUARD = """trap '' INT TERM HUP QUIT USR1 USR2
while read -r group; do
  [ "$group" = done ] && exit
  set -- "$@" "-$group"
done
kill -s KILL -- "$@" 2>/dev/null"""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a rank left: its exit code, or minus the signal's number.

    `by_us`: it was ended because of another, or before it could obey a stop. `too_early`: it left as if done, without
    having reported its job. `out_of_memory`: the kernel killed for memory while it ran.
    """

    rank: int
    code: int
    by_us: bool = False
    too_early: bool = False
    out_of_memory: bool = False
    time_ns: int = field(default=0, compare=False)
    """When its end was seen."""

    @property
    def is_fine(self) -> bool:
        """Done, or saved because it was asked to stop."""
        return self.code in (DONE, SAVED) and not self.too_early

    @property
    def has_failed(self) -> bool:
        """Whether it ended by itself, and wrongly."""
        return not self.is_fine and not self.by_us


@dataclass(slots=True)
class _Process:
    popen: subprocess.Popen[bytes]
    report: Path
    log: Path


class Ranks:
    """The processes of one job, by rank; none of them, and none they have started, outlives the `with` block."""

    def __init__(self) -> None:
        self._processes: dict[int, _Process] = {}
        self._exits: dict[int, Exit] = {}
        self._asked_to_stop = self._ending = False
        self._kills_before = out_of_memory_kills()
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "lft-guard"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):  # somebody killed the guard
            self._guard.stdin.write(b"done\n")
            self._guard.stdin.close()
        self._guard.wait()

    def start(self, rank: int, argv: list[str], environment: dict[str, str], *, log: Path, report: Path) -> None:
        """Start a rank in a session of its own, so that Ctrl-C reaches only the launcher; output goes to `log`.

        A stop signal waits until the rank listens (`stop_signals.let_through`), however long it imports its libraries.
        The rank is done when it has written `report` and left.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream, blocked():
            popen = subprocess.Popen(
                argv,
                env=clean_environment() | environment | {LAUNCHER_PID: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[rank] = _Process(popen, report, log)
        assert self._guard.stdin is not None
        with suppress(BrokenPipeError):
            self._guard.stdin.write(f"{popen.pid}\n".encode())
            self._guard.stdin.flush()

    def pid(self, rank: int) -> int:
        """The process of a rank."""
        return self._processes[rank].popen.pid

    def running(self) -> list[int]:
        """The ranks that have not left; what those that have left had started is ended."""
        for rank in self._processes.keys() - self._exits.keys():
            if os.waitid(os.P_PID, self.pid(rank), os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                self._reap(rank)
        return [rank for rank in self._processes if rank not in self._exits]

    def exits(self) -> list[Exit]:
        """How those that have left did so."""
        self.running()
        return [self._exits[rank] for rank in sorted(self._exits)]

    def ask_to_stop(self) -> None:
        """SIGTERM: save and leave. A rank that dies of it has not come so far that it could save."""
        self._asked_to_stop = True
        for rank in self.running():
            self._processes[rank].popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End those that have not left, whatever they are doing."""
        still_there = self.running()
        self._ending = True
        for rank in still_there:
            os.killpg(self.pid(rank), signal.SIGKILL)
        for rank in still_there:
            self._reap(rank)

    def state(self, rank: int) -> str:
        """The kernel's letter for what a running rank does (R, S, D, T, ...); nothing where it does not say."""
        try:
            return Path(f"/proc/{self.pid(rank)}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
        except (OSError, IndexError):
            return ""

    def dump_stacks(self, which: Iterable[int]) -> dict[int, str]:
        """Have ranks write the stacks of all their threads to their logs; returns what each wrote.

        faulthandler does it from the signal handler itself: Python's own handlers do not run inside a blocked collective.
        A stopped process writes nothing, and is not waited for.
        """
        logs = {rank: self._processes[rank].log for rank in which}
        sizes = {rank: log.stat().st_size for rank, log in logs.items()}
        awaited = {rank for rank in logs if self.state(rank) not in ("T", "t")}
        for rank in awaited:
            self._processes[rank].popen.send_signal(signal.SIGQUIT)
        deadline, before = time.monotonic() + DUMP_SECONDS, dict(sizes)
        while time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            now = {rank: logs[rank].stat().st_size for rank in awaited}
            if all(now[rank] > sizes[rank] and now[rank] == before[rank] for rank in awaited):
                break
            before |= now
        return {rank: _text_from(logs[rank], sizes[rank]) for rank in logs}

    def _reap(self, rank: int) -> None:
        """Note how a rank left. Its group is killed while its own number still keeps the group's from being given away."""
        process = self._processes[rank]
        os.waitid(os.P_PID, process.popen.pid, os.WEXITED | os.WNOWAIT)
        with suppress(ProcessLookupError, PermissionError):  # macOS does not signal a group of zombies
            os.killpg(process.popen.pid, signal.SIGKILL)
        code = process.popen.wait()
        self._exits[rank] = Exit(
            rank,
            code,
            by_us=self._ending or (self._asked_to_stop and code == -signal.SIGTERM),
            too_early=code == DONE and not process.report.exists(),
            out_of_memory=code == -signal.SIGKILL and not self._ending and out_of_memory_kills() > self._kills_before,
            time_ns=time.time_ns(),
        )


def _text_from(path: Path, offset: int) -> str:
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read().decode(errors="replace")


assert sys.platform != "win32"  # process groups and waitid
