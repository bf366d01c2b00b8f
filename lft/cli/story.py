"""A run in words: how far it is, how an attempt ended, who ran it, and what to type next. Facts in, lines out."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from lft.core.errors import DONE
from lft.core.words import clock, counted, duration, rank_names
from lft.launch.ending import told_end
from lft.launch.follow import AttemptStatus, Progress, RankBeat, RunStatus, seconds_since
from lft.launch.pace import Pace

QUIET_SECONDS = 10.0
"""From then on it is said when the ranks were last heard."""
MOST_NAMED = 8
"""Lines about ranks that differ, at most; --json has all."""


def typed(verb: str, output_dir: Path) -> str:
    """`lft VERB OUTPUT_DIR`, as one would type it."""
    return f"lft {verb} {shlex.quote(str(output_dir))}"


def launcher_gone(attempt: AttemptStatus) -> str:
    """What is known when a launcher left without writing how the attempt ended."""
    return f"the launcher ({attempt.launcher}) is gone without a word; its ranks died with it"


def told_attempt(attempt: AttemptStatus, progress: Progress | None) -> str:
    """One attempt on one line; `progress` where it has not ended."""
    name, launcher = f"attempt {attempt.number}", attempt.launcher
    name += f", from {attempt.resumed_from}," if attempt.resumed_from else ""
    if attempt.outcome is not None:
        ago = f", {duration(seconds_since(attempt.outcome.ended_ns))} ago" if attempt.outcome.ended_ns else ""
        return f"{name} {told_end(attempt.outcome)}{ago}"
    if progress and attempt.state == "gone":
        progress = progress.model_copy(update={"pace": Pace()})  # it has none any more
    where = f", {told_progress(progress)}" if progress and progress.stage else ""
    if attempt.state == "running":
        if launcher is None:
            return f"{name} running, started by another launcher than lft{where}" if where else f"{name} is starting"
        return f"{name} running ({launcher}){where}"
    if attempt.state == "gone":
        return f"{name} {launcher_gone(attempt)}{where}"
    return f"{name} was started without a launcher of lft, which would say how it ended{where}"


def told_progress(progress: Progress) -> str:
    """Stage and step of most ranks, loss, speed, time left; and since when nothing was heard."""
    pace = progress.pace
    parts = [progress.stage + _of_steps(progress.step, progress.total)]
    if pace.loss is not None:
        parts.append(f"loss {pace.loss:.3g}")
    parts += [words for words in pace.describe().split("  ") if words]
    if pace.memory_bytes is not None:
        parts.append(f"mem {pace.memory_bytes / 1e9:.1f} GB")
    if pace.eta_seconds is not None:
        parts.append(f"eta {clock(pace.eta_seconds)}")
    quiet = seconds_since(progress.heard_ns) if progress.heard_ns else 0.0
    if quiet >= QUIET_SECONDS:
        parts.append(f"last heard {duration(quiet)} ago")
    return ", ".join(parts)


def told_apart(ranks: tuple[RankBeat, ...]) -> list[str]:
    """The ranks that differ from most, those that differ alike on one line."""
    alike: dict[tuple[str, int | None, int | None], list[RankBeat]] = {}
    for each in ranks:
        key = (each.beat.stage, each.beat.step, each.beat.total) if each.beat else ("", None, None)
        alike.setdefault(key, []).append(each)
    lines = []
    for (stage, step, total), those in alike.items():
        who = rank_names(each.rank for each in those)
        is_, has = ("is", "has") if len(those) == 1 else ("are", "have")
        heard = max((each.beat.time_ns for each in those if each.beat), default=0)
        ago = duration(seconds_since(heard))
        where = f"{is_} at {stage}{_of_steps(step, total)}, last heard {ago} ago"
        lines.append(f"{who} {where if heard else f'{has} not been heard yet'}")
    if len(lines) > MOST_NAMED:
        lines[MOST_NAMED:] = [f"and {counted(len(lines) - MOST_NAMED, 'group')} of ranks more; --json names all"]
    return lines


def told_checkpoints(status: RunStatus) -> list[str]:
    """The newest complete one and its age, how many are before it, and those that are not complete, on a line if any."""
    parts = []
    if status.checkpoints:
        before = len(status.checkpoints) - 1
        age = f", saved {duration(seconds_since(status.saved_ns))} ago" if status.saved_ns else ""
        parts.append(status.checkpoints[-1] + age + (f", and {before} before it" if before else ""))
    if status.incomplete:
        parts.append(f"not complete: {', '.join(status.incomplete)}")
    return [f"checkpoints  {'; '.join(parts)}"] if parts else []


def next_step(status: RunStatus, output_dir: Path) -> str:
    """What to type next."""
    newest = status.attempts[0]
    if status.is_alive:
        return f"{typed('logs', output_dir)} --follow     or: {typed('stop', output_dir)}"
    if newest.outcome is not None and newest.outcome.next_step:
        return newest.outcome.next_step
    if status.is_trained and status.has_benchmark:
        return f"{typed('benchmark', output_dir)}     compares base and tuned model again"
    if status.is_trained:
        return f"{typed('upload', output_dir)} --repo-name USER/NAME     shares the adapter"
    if newest.outcome is not None and newest.outcome.exit_code == DONE:
        return f"{typed('report', output_dir)} --open"
    if newest.outcome is not None and newest.outcome.failure is not None:
        return f"{typed('why', output_dir)}     then: {typed('resume', output_dir)}"
    return typed("resume", output_dir)


def finished_lines(output_dir: Path, tasks: Sequence[str]) -> list[str]:
    """What is said of a run that has trained, and what of it is left."""
    if tasks:
        return [f"  trained    the run in {output_dir} has trained; left to do: {', '.join(tasks)}"]
    again = f"{typed('benchmark', output_dir)}     compares base and tuned model again"
    return [f"  finished   the run in {output_dir} is done; there is nothing to go on with", f"  next       {again}"]


def _of_steps(step: int | None, total: int | None) -> str:
    if step is None:
        return ""
    return f" step {step:,}" + (f"/{total:,}" if total is not None else "")
