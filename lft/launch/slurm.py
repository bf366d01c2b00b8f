"""SLURM's own programs, as far as lft asks them: submit, look, cancel. Each may be missing, forbidden or out of order."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lft.core.errors import PreflightError
from lft.core.rank import environment_for_jobs

ASK_SECONDS = 30
"""SLURM answers in milliseconds, a busy controller in seconds."""
OVER = (
    "COMPLETED",
    "FAILED",
    "TIMEOUT",
    "CANCELLED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
    "PREEMPTED",
)
FIELDS = "%T|%r|%S|%e|%N"
"""squeue's state, reason, start, end and nodes."""


class Job(BaseModel):
    """A job as SLURM tells of it."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    state: str
    """As SLURM names it: PENDING, RUNNING, ..."""
    reason: str = ""
    start: str = ""
    """When it started, or is expected to, as 2026-11-23T14:20:00; nothing where SLURM does not know."""
    end: str = ""
    nodes: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it will not run any more."""
        return self.state.startswith(OVER)

    @property
    def is_ended_by_hand(self) -> bool:
        """Whether it was cancelled. While its processes leave, a job is COMPLETING, also at its time limit."""
        return self.state == "CANCELLED" or (self.state == "COMPLETING" and self.reason != "TimeLimit")


@dataclass(frozen=True, slots=True)
class Advice:
    """What sbatch --test-only says of a script."""

    expected_start: str
    """As 2026-11-23T14:20:00; nothing where it does not say."""
    warnings: tuple[str, ...]


def judge(script: Path) -> Advice:
    """Have SLURM judge a script without submitting it. Raises PreflightError with its words where it refuses.

    It exits 0 for shapes that cannot be, after changing them, and only warns (22.05): a change of nodes is a refusal too.
    """
    done = _run(["sbatch", "--test-only", script.name], folder=script.parent)
    lines = [line.removeprefix("sbatch: ").strip() for line in done.stderr.splitlines()]
    said = [line for line in lines if line and not line.startswith("Job ")]
    if done.returncode != 0 or any("setting nnodes to" in line for line in said):
        words = "; ".join(line.removeprefix("error: ") for line in said) or f"exit code {done.returncode}"
        raise PreflightError(
            f"SLURM refuses the job: {words}",
            next_step="sinfo   shows partitions and nodes; then change --nodes, --gpus, --time or --partition",
        )
    start = re.search(r"to start at (\S+)", done.stderr)
    return Advice(start[1] if start else "", tuple(said))


def submit(script: Path, after: Sequence[str] = ()) -> str:
    """Submit a script from its folder; `after`: jobs that must first be done. Returns the job id. Raises PreflightError."""
    dependency = [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
    done = _run(["sbatch", "--parsable", *dependency, script.name], folder=script.parent)
    job_id = done.stdout.strip().partition(";")[0]
    if done.returncode != 0 or not job_id:
        raise PreflightError(f"sbatch refuses the job: {done.stderr.strip()}", next_step=f"see the script: {script}")
    return job_id


def find_job(job_id: str) -> Job | None:
    """A job by squeue, else scontrol, else sacct; None where none of them knows it."""
    return _from_squeue(job_id) or _from_scontrol(job_id) or _from_sacct(job_id)


def requeues_by_exit_code(code: int) -> bool:
    """Whether the site's RequeueExit holds an exit code, so that a batch script that ends with it is started again."""
    try:
        config = _run(["scontrol", "show", "config"]).stdout
    except PreflightError:
        return False
    found = re.search(r"^RequeueExit\s*=\s*([\d,-]+)\s*$", config, re.MULTILINE)
    spans = [span.partition("-") for span in found[1].split(",")] if found else []
    return any(first.isdigit() and int(first) <= code <= int(last or first) for first, _, last in spans)


def cancel(job_id: str) -> str:
    """End a job, waiting or running; returns what scancel complains of."""
    return _run(["scancel", job_id]).stderr.strip()


def end_time(job_id: str) -> float | None:
    """When a running job's time is over, in seconds since the epoch; None where SLURM does not tell."""
    try:
        text = _run(["squeue", "-h", "-j", job_id, "-o", "%e"]).stdout.strip()
        return datetime.fromisoformat(text).timestamp()
    except (PreflightError, ValueError):
        return None


def _from_squeue(job_id: str) -> Job | None:
    try:
        done = _run(["squeue", "-h", "-t", "all", "-j", job_id, "-o", FIELDS])
    except PreflightError:
        return None
    parts = done.stdout.strip().partition("\n")[0].split("|")
    if done.returncode != 0 or len(parts) != len(FIELDS.split("|")):
        return None
    state, reason, start, end, nodes = ("" if part in ("N/A", "None") else part for part in parts)
    return Job(job_id=job_id, state=state, reason=reason, start=start, end=end, nodes=nodes)


def _from_scontrol(job_id: str) -> Job | None:
    try:
        done = _run(["scontrol", "show", "job", "--oneliner", job_id])
    except PreflightError:
        return None
    fields = dict(re.findall(r"(?<!\S)(JobState|Reason|StartTime|EndTime|NodeList)=(\S+)", done.stdout))
    if done.returncode != 0 or "JobState" not in fields:
        return None
    fields = {name: "" if value in ("Unknown", "None", "(null)") else value for name, value in fields.items()}
    known = {"state": "JobState", "reason": "Reason", "start": "StartTime", "end": "EndTime", "nodes": "NodeList"}
    return Job(job_id=job_id, **{name: fields.get(field, "") for name, field in known.items()})


def _from_sacct(job_id: str) -> Job | None:
    """Many sites keep no accounts: sacct then fails."""
    try:
        done = _run(["sacct", "-n", "-X", "-P", "-j", job_id, "-o", "State,Start,End,NodeList"])
    except PreflightError:
        return None
    parts = done.stdout.strip().rpartition("\n")[2].split("|")
    if done.returncode != 0 or len(parts) != 4:
        return None
    return Job(job_id=job_id, state=parts[0], start=parts[1], end=parts[2], nodes=parts[3])


def _run(argv: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's programs. Raises PreflightError where it is missing or does not answer."""
    try:
        return subprocess.run(
            argv,
            cwd=folder,
            env=environment_for_jobs(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ASK_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise PreflightError(
            f"{argv[0]} is not here: SLURM's programs are expected on this machine",
            next_step="run it on a login node, or make the script only: lft submit ... --script-only",
        ) from None
    except subprocess.TimeoutExpired:
        raise PreflightError(
            f"{argv[0]} has not answered for {ASK_SECONDS} s",
            next_step="try again later; sinfo shows whether SLURM is up",
        ) from None
