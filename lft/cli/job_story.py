"""A run's SLURM job, and a sweep's runs, in words: for the verbs that follow them from the login node."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from lft.cli.story import told_attempt, typed
from lft.core.run_dir import RunDir
from lft.launch.ending import first_line
from lft.launch.follow import AttemptStatus, existing_run, read_status
from lft.launch.slurm import Job, find_job
from lft.launch.submission import job_ids, sweep_of

SECONDS_BETWEEN_ASKING = 10.0
"""A controller with thousands of users is asked no more often for each of them."""
UNKNOWN = "UNKNOWN"
LOG_LINES = 15
REASONS = {
    "BeginTime": "is requeued",
    "Dependency": "waits until another job is done",
    "DependencyNeverSatisfied": "waits for a job that failed",
    "Resources": "waits for nodes to become free",
    "Priority": "waits for jobs of higher priority",
    "JobHeldUser": "is held by its user",
    "JobHeldAdmin": "is held by an administrator",
}


def newest_job(run_dir: RunDir) -> Job | None:
    """The newest job of a run, as SLURM tells of it, or with the state UNKNOWN; None where it has no job."""
    ids = job_ids(run_dir)
    if not ids:
        return None
    return find_job(ids[-1]) or Job(job_id=ids[-1], state=UNKNOWN)


class JobWatch:
    """The newest job of a run, asked for again only after some seconds."""

    def __init__(self, run_dir: RunDir) -> None:
        self.run_dir = run_dir
        self._asked = float("-inf")
        self._job: Job | None = None

    def __call__(self) -> Job | None:
        """The job, at most SECONDS_BETWEEN_ASKING old."""
        if time.monotonic() - self._asked >= SECONDS_BETWEEN_ASKING:
            self._job, self._asked = newest_job(self.run_dir), time.monotonic()
        return self._job


def goes_on(job: Job | None) -> bool:
    """Whether a job waits or runs."""
    return job is not None and not job.is_over and job.state != UNKNOWN


def told_job(job: Job) -> str:
    """`job 48213 waits for nodes to become free, earliest start 14:20`."""
    name = f"job {job.job_id}"
    if job.state == UNKNOWN:
        return f"{name} is not known to SLURM any more"
    if job.state == "PENDING":
        start = told_time(job.start)
        reason = REASONS.get(job.reason, f"waits ({job.reason})" if job.reason else "waits")
        return f"{name} {reason}" + (f", earliest start {start}" if start else "")
    where = f" on {job.nodes}" if job.nodes else ""
    if job.state == "RUNNING":
        end = told_time(job.end)
        return f"{name} running{where}" + (f", until {end} at most" if end else "")
    return f"{name} {first_line(job.state).lower().replace('_', ' ')}{where}"


def told_time(text: str) -> str:
    """`14:20` today, else `Nov 24 14:20`; nothing where it is no time."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return ""
    return f"{when:%H:%M}" if when.date() == datetime.now().date() else f"{when:%b %d %H:%M}"


def told_wait(attempt: AttemptStatus, following: AttemptStatus | None) -> str:
    """`; attempt 1 began 121 s later`: how long the run waited between two attempts."""
    ended, began = attempt.outcome, following.launcher if following else None
    if not ended or not began or not ended.ended_ns or began.started_ns < ended.ended_ns:
        return ""
    return f"; attempt {attempt.number + 1} began {(began.started_ns - ended.ended_ns) / 1e9:.0f} s later"


def before_it_began(run_dir: RunDir, output_dir: Path) -> Iterator[str]:
    """A run that was submitted and has not begun: its job, and, where that has ended, what it printed."""
    job = newest_job(run_dir)
    assert job is not None
    yield told_job(job)
    if goes_on(job):
        yield f"next   {typed('status', output_dir)} --watch     or: {typed('stop', output_dir)}"
        return
    if lines := job_log(run_dir):
        yield "the last lines of its log"
        yield from (f"  {line}" for line in lines)
    yield f"next   {typed('resume', output_dir)}     submits it again"


def job_log(run_dir: RunDir) -> list[str]:
    """The last lines that the newest job printed."""
    logs = sorted(run_dir.slurm.glob("job-*.log"), key=lambda path: path.stat().st_mtime_ns)
    return logs[-1].read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:] if logs else []


def sweep_lines(run_dir: RunDir) -> Iterator[str]:
    """A table of a sweep: for each run its changes, how far it is, and its held-out loss and ROUGE-L where it has them."""
    for number, changes in enumerate(sweep_of(run_dir)):
        what = ", ".join(f"{key}={value}" for key, value in changes.items()) or "as it is"
        yield f"{number}  {what:<40}  {_told_element(RunDir(run_dir.output_dir / str(number)))}"


def _told_element(run_dir: RunDir) -> str:
    if not run_dir.attempts():
        job = newest_job(run_dir)
        return told_job(job) if job else "not submitted"
    status = read_status(existing_run(run_dir.output_dir))
    return told_attempt(status.attempts[0], status.progress) + _scores(run_dir)


def _scores(run_dir: RunDir) -> str:
    from lft.publish.report import read_report

    report: dict[str, Any] = read_report(run_dir) or {}
    parts = []
    if losses := (report.get("training") or {}).get("losses"):
        parts.append(f"loss {losses[-1]['loss']:.3f}")
    if benchmark := report.get("benchmark"):
        parts.append(f"held-out loss {benchmark['tuned']['loss']:.3f}, ROUGE-L {benchmark['tuned']['rougeL']:.3f}")
    return f", {', '.join(parts)}" if parts else ""
