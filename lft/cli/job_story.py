"""A run's SLURM job in words, for the verbs that follow it from the login node."""

from datetime import datetime

from lft.cli.story import first_line
from lft.core.run_dir import RunDir
from lft.launch.slurm import Job, find_job
from lft.launch.submission import job_ids

REASONS = {
    "BeginTime": "requeued or to begin later",
    "Dependency": "until another job is done",
    "DependencyNeverSatisfied": "for a job that failed",
    "Resources": "for nodes to become free",
    "Priority": "for jobs of higher priority",
    "JobHeldUser": "held by its user",
    "JobHeldAdmin": "held by an administrator",
}


def newest_job(run_dir: RunDir) -> Job | None:
    """The newest job of a run, as SLURM tells of it, or with the state UNKNOWN; None where it has no job."""
    ids = job_ids(run_dir)
    if not ids:
        return None
    return find_job(ids[-1]) or Job(job_id=ids[-1], state="UNKNOWN")


def told_job(job: Job) -> str:
    """`job 48213 waits for nodes to become free, expected start 14:20`."""
    name = f"job {job.job_id}"
    if job.state == "UNKNOWN":
        return f"{name} is not known to SLURM any more"
    if job.state == "PENDING":
        reason = REASONS.get(job.reason, job.reason or "in the queue")
        start = told_time(job.start)
        verb = "is" if job.reason.startswith(("BeginTime", "JobHeld")) else "waits"
        return f"{name} {verb} {reason}" + (f", earliest start {start}" if start else "")
    where = f" on {job.nodes}" if job.nodes else ""
    if job.state == "RUNNING":
        end = told_time(job.end)
        return f"{name} running{where}" + (f", until {end} at most" if end else "")
    return f"{name} {first_line(job.state).lower()}{where}"


def told_time(text: str) -> str:
    """`14:20` today, else `Nov 24 14:20`; nothing where it is no time."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return ""
    return f"{when:%H:%M}" if when.date() == datetime.now().date() else f"{when:%b %d %H:%M}"
