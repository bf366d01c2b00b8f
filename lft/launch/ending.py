"""How an attempt ended, in words: for status, for the story of a failure, and for the report's page."""

import signal

from lft.core.errors import DONE, EXIT_CODES, FORCED
from lft.core.order import WorkerReport
from lft.core.words import rank_names
from lft.launch.outcome import Outcome


def told_end(outcome: Outcome) -> str:
    """How an attempt ended, and its exit code."""
    if outcome.exit_code == DONE:
        done = ", ".join(["done", *([f"uploaded to {outcome.uploaded}"] if outcome.uploaded else [])])
        return f"{done}, but {'; '.join(outcome.all_problems)}" if outcome.all_problems else done
    code = f"exit {outcome.exit_code}"
    if outcome.failure is not None:
        report = outcome.failure.report
        what = in_a_line(report) or "it left no word"
        place = told_place(report, outcome.failure.ranks)
        return "; ".join([f"failed ({code}, {told_code(outcome.exit_code)}): {place}: {what}", *outcome.all_problems])
    return f"ended ({code}, {told_code(outcome.exit_code)})" + (
        f": {'; '.join(filter(None, (outcome.stopped, outcome.took)))}" if outcome.stopped else ""
    )


def told_code(code: int) -> str:
    """What an exit code means."""
    if code in EXIT_CODES:
        return EXIT_CODES[code]
    try:
        return f"forced to end by {signal.Signals(code - FORCED).name}"
    except ValueError:
        return "the exit code of a rank that left no report"


def told_place(report: WorkerReport, ranks: tuple[int, ...] = ()) -> str:
    """`rank 5 on gpu-a2, at step 412, while training`; several ranks may be on several nodes."""
    ranks = ranks or (report.rank,)
    node = f" on {report.node}" if report.node and len(ranks) == 1 else ""
    step = f", at step {report.step + 1:,}" if report.step is not None else ""
    stage = f", while {report.stage}" if report.stage else ""
    return rank_names(ranks) + node + step + stage


def in_a_line(report: WorkerReport) -> str:
    """What a rank said last, or of what kind the error was that said nothing."""
    return first_line(report.message) or report.error_class


def first_line(text: str) -> str:
    """The first line of a message that may have many."""
    return text.strip().partition("\n")[0]
