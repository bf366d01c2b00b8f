"""Which rank's error is the one that happened: causes beat victims, then the earliest counts. Pure, but for reading reports."""

import signal
from dataclasses import dataclass

from pydantic import ValidationError

from lft.core.errors import FORCED, TRAINING
from lft.core.order import WorkerReport
from lft.core.run_dir import Attempt
from lft.launch.supervisor import Exit

LOG_LINES = 15


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of a job: the report of the rank that caused it, and all ranks that failed with the same message."""

    report: WorkerReport
    ranks: tuple[int, ...]
    stopped: int
    """How many other ranks were stopped because of it."""
    log_tail: str = ""

    def who(self) -> str:
        """`rank 1` or `ranks 0-3`."""
        if len(self.ranks) == 1:
            return f"rank {self.ranks[0]}"
        whole = self.ranks == tuple(range(self.ranks[0], self.ranks[-1] + 1))
        return f"ranks {self.ranks[0]}-{self.ranks[-1]}" if whole else "ranks " + ", ".join(map(str, self.ranks))


def find_failure(exits: list[Exit], attempt: Attempt) -> Failure | None:
    """The failure behind the exits, or None where every rank is done or saved."""
    failed = [exit_ for exit_ in exits if not exit_.is_fine]
    if not failed:
        return None
    reports = [report for exit_ in failed if (report := _report_of(exit_, attempt)) is not None]
    if not reports:  # every one of them was killed here, for being too slow to stop
        slowest = failed[0]
        reports = [_without_report(slowest, "did not stop in time and was killed")]
    return Failure(
        report=(cause := pick_cause(reports)),
        ranks=(ranks := tuple(sorted(report.rank for report in reports if report.message == cause.message))),
        stopped=len(exits) - len(ranks),
        log_tail="" if cause.traceback else _log_tail(attempt, cause.rank),
    )


def pick_cause(reports: list[WorkerReport]) -> WorkerReport:
    """The report to believe: of those that do not blame another rank, the earliest; else the earliest."""
    return min(reports, key=lambda report: (report.is_victim, report.time_ns))


def _report_of(exit_: Exit, attempt: Attempt) -> WorkerReport | None:
    try:
        return WorkerReport.load(attempt.failure(exit_.rank))
    except (OSError, ValidationError):
        pass
    if exit_.by_us:
        return None
    if exit_.code < 0:
        name = signal.Signals(-exit_.code).name
        hint = ", which the system sends when memory runs out" if name == "SIGKILL" else ""
        return _without_report(exit_, f"was killed by {name}{hint}")
    if exit_.too_early:
        return _without_report(exit_, "left with exit code 0 before its job was done")
    return _without_report(exit_, f"left with exit code {exit_.code} and no report")


def _without_report(exit_: Exit, message: str) -> WorkerReport:
    code = FORCED - exit_.code if exit_.code < 0 else exit_.code or TRAINING
    # NCCL's watchdog aborts a rank, past any report, when another one went away
    aborted = exit_.code == -signal.SIGABRT
    return WorkerReport(ok=False, rank=exit_.rank, stage="", exit_code=code, message=message, is_victim=aborted)


def _log_tail(attempt: Attempt, rank: int) -> str:
    try:
        lines = attempt.log(rank).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(lines[-LOG_LINES:])
