"""Which rank's error is the one that happened: causes beat victims, then the earliest counts."""

import os
import signal
from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from lft.core.beat import Beat
from lft.core.errors import FORCED, HANG, OUT_OF_MEMORY, TRAINING
from lft.core.order import WorkerReport
from lft.core.run_dir import Attempt
from lft.launch.hang import Hang, main_stack
from lft.launch.outcome import Failure
from lft.launch.ranks import Exit
from lft.launch.supervisor import Ended

LOG_LINES = 15
LOG_BYTES = 65_536
DEATH = "Fatal Python error: "
"""What faulthandler writes first."""


def find_failure(ended: Ended, attempt: Attempt, elsewhere: Sequence[WorkerReport] = ()) -> Failure | None:
    """The failure that ended a job, or None where every rank is done or saved; `elsewhere` failed on other nodes."""
    if ended.hang is not None and all(report.is_victim for report in elsewhere):
        return Failure(report=hang_report(ended.hang, attempt), ranks=(ended.hang.rank,), stopped=len(ended.exits) - 1)
    failed = [exit_ for exit_ in ended.exits if not exit_.is_fine]
    if not failed and not elsewhere:
        return None
    reports = [report for exit_ in failed if (report := report_of(exit_, attempt)) is not None] + list(elsewhere)
    if not any(not report.is_victim for report in reports):
        reports += [_silent(rank, stack, attempt) for rank, stack in ended.stacks.items()]
    if not reports:  # every one of them was killed here, for being too slow to stop
        reports = [_without_report(failed[0], attempt, "did not stop in time and was killed")]
    return fold(reports, len(ended.exits), attempt)


def fold(reports: Iterable[WorkerReport], world_size: int, attempt: Attempt) -> Failure:
    """The cause among `reports`, with all ranks that failed in the same way."""
    reports = list(reports)
    cause = pick_cause(reports)
    same = (cause.error_class, cause.message)
    ranks = tuple(sorted({report.rank for report in reports if (report.error_class, report.message) == same}))
    # nothing in the log tells of a SIGKILL
    says_more = not cause.traceback and cause.exit_code not in (FORCED + signal.SIGKILL, OUT_OF_MEMORY)
    log_tail = _log_tail(attempt, cause.rank) if says_more else ""
    return Failure(report=cause, ranks=ranks, stopped=world_size - len(ranks), log_tail=log_tail)


def pick_cause(reports: list[WorkerReport]) -> WorkerReport:
    """The report to believe: of those that do not blame another rank, the earliest; else the earliest."""
    return min(reports, key=lambda report: (report.is_victim, report.time_ns))


def all_reports(attempt: Attempt) -> list[WorkerReport]:
    """What every rank of the attempt, on any node, has reported of its failure; thousands a second."""
    reports = []
    with os.scandir(attempt.failure(0).parent) as entries:
        for entry in entries:
            try:
                with open(entry.path, "rb") as stream:
                    reports.append(WorkerReport.model_validate_json(stream.read()))
            except (OSError, ValidationError):
                continue
    return reports


def is_cause(exit_: Exit, attempt: Attempt) -> bool:
    """Whether a rank failed by itself."""
    report = report_of(exit_, attempt) if exit_.has_failed else None
    return report is not None and not report.is_victim


def report_of(exit_: Exit, attempt: Attempt) -> WorkerReport | None:
    """What a failed rank reported, else what its exit tells; None where it was only ended because of another."""
    try:
        return WorkerReport.load(attempt.failure(exit_.rank))
    except (OSError, ValidationError):
        pass
    if exit_.by_us:
        return None
    if exit_.out_of_memory:
        return _without_report(exit_, attempt, "was killed by the kernel: the machine, or its cgroup, is out of memory")
    if exit_.code < 0:
        return _without_report(exit_, attempt, f"was killed by {signal.Signals(-exit_.code).name}")
    if exit_.too_early:
        return _without_report(exit_, attempt, "left with exit code 0 before its job was done")
    return _without_report(exit_, attempt, f"left with exit code {exit_.code} and no report")


def hang_report(hang: Hang, attempt: Attempt) -> WorkerReport:
    """A hang as the report of the rank that holds up the others."""
    beat = hang.beat
    return WorkerReport(
        ok=False,
        rank=hang.rank,
        stage=beat.stage if beat else "starting",
        step=beat.step if beat else None,
        exit_code=HANG,
        message=f"made no progress for {hang.seconds:.0f} s: {hang.why}",
        traceback=f"most recent call first:\n{hang.stack}" if hang.stack else "",
        time_ns=beat.time_ns if beat else 0,
    )


def _silent(rank: int, stack: str, attempt: Attempt) -> WorkerReport:
    """A rank that others blame, and that has itself said nothing until it was killed."""
    beat = Beat.load(attempt.beat(rank))
    own = main_stack(stack)
    return WorkerReport(
        ok=False,
        rank=rank,
        stage=beat.stage if beat else "",
        step=beat.step if beat else None,
        exit_code=TRAINING,
        message="closed its connection to the others, then neither reported nor left, and was killed",
        traceback=f"most recent call first:\n{own}" if own else "",
    )


def _without_report(exit_: Exit, attempt: Attempt, message: str) -> WorkerReport:
    code = FORCED - exit_.code if exit_.code < 0 else exit_.code or TRAINING
    beat = Beat.load(attempt.beat(exit_.rank))
    return WorkerReport(
        ok=False,
        rank=exit_.rank,
        stage=beat.stage if beat else "",
        step=beat.step if beat else None,
        exit_code=OUT_OF_MEMORY if exit_.out_of_memory else code,
        message=message,
        # NCCL's watchdog aborts a rank, past any report, when another one went away
        is_victim=exit_.code == -signal.SIGABRT,
        time_ns=exit_.time_ns,
    )


def _log_tail(attempt: Attempt, rank: int) -> str:
    """The last lines of a rank's log, however long it is; those of its death where Python could write some."""
    try:
        with attempt.log(rank).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - LOG_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    _, death, stack = text.rpartition(DEATH)
    return "\n".join((death + stack).splitlines()[:LOG_LINES] if death else text.splitlines()[-LOG_LINES:])
