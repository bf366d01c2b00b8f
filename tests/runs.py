"""Runs as their writers leave them, without any training: orders, beats, events, reports, and a launcher that stands by."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lft.core.beat import Beat
from lft.core.checkpoints import FileDigest, Manifest
from lft.core.files import write_text
from lft.core.hardware import Machine
from lft.core.order import WorkerReport
from lft.core.run_dir import Attempt, RunDir
from lft.core.settings import RunSettings
from lft.launch.outcome import Outcome
from lft.plan.launch_plan import LaunchPlan, make_plan

MACHINE = Machine(gpus=(), cpu_cores=2, memory_bytes=2**33, cpu_computes_bf16=False)
DEADLINE_SECONDS = 30.0

LAUNCHER = """
import json, os, sys, time
from pathlib import Path
from filelock import FileLock
from lft.core.files import write_text
from lft.core.run_dir import RunDir
from lft.launch.outcome import Outcome

run, answer = RunDir(Path(sys.argv[1])), sys.argv[2]
with FileLock(run.run / "lock"):
    attempt = run.attempts()[-1]
    who = {"pid": os.getpid(), "host": "here", "started_ns": time.time_ns() - 10**11, "node": 0}
    write_text(attempt.launcher, json.dumps(who))
    while not run.stop_request.exists():
        if os.getppid() != int(sys.argv[3]):
            os._exit(1)
        time.sleep(0.01)
    request = json.loads(run.stop_request.read_text())
    if answer == "vanish":
        os._exit(9)
    if answer == "never":
        time.sleep(600)
    words = "at once" if request.get("now") else "after step 3; checkpoint-3 is saved"
    run.stop_request.unlink()
    Outcome(exit_code=130, stopped=f"stopped {words}", ended_ns=time.time_ns()).save(attempt.outcome)
"""


def new_attempt(output_dir: Path, resume_from: Path | None = None, **launcher: object) -> LaunchPlan:
    """The files of one more attempt, of two ranks, as a launcher writes them before it starts them."""
    values = {"model": {"name": "a/b"}, "data": {"source": "c/d"}, "output_dir": output_dir}
    settings = RunSettings.model_validate(values | {"launch": {"cpu_procs": 2}})
    plan = make_plan(settings=settings, machine=MACHINE, attempt=RunDir(output_dir).next_attempt().number)
    plan = plan.model_copy(update={"resume_from": resume_from})
    for name, text in plan.files().items():
        write_text(output_dir / name, text)
    who = {"pid": 4711, "host": "gpu-a2", "started_ns": time.time_ns(), "node": 0}
    plan.attempt_dir.launcher.write_text(json.dumps(who | launcher))
    return plan


def end(attempt: Attempt, exit_code: int = 0, **facts: object) -> None:
    """Write how an attempt ended."""
    values = {"exit_code": exit_code, "ended_ns": time.time_ns()} | facts
    Outcome.model_validate(values).save(attempt.outcome)


def beat(attempt: Attempt, rank: int, stage: str, step: int | None = None, age_seconds: float = 0.0) -> None:
    """What a rank was doing so long ago, of 100 steps."""
    path = attempt.beat(rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    when = time.time_ns() - int(age_seconds * 1e9)
    path.write_text(Beat(stage=stage, step=step, total=step and 100, time_ns=when).model_dump_json())


def fail(attempt: Attempt, rank: int, message: str, **facts: object) -> WorkerReport:
    """A rank's report of its failure."""
    values = {"ok": False, "rank": rank, "stage": "training", "step": 3, "node": "gpu-a2", "exit_code": 64}
    report = WorkerReport.model_validate(values | {"message": message, "time_ns": time.time_ns()} | facts)
    report.save(attempt.failure(rank))
    return report


def checkpoint(output_dir: Path, step: int, *, complete: bool = True) -> Path:
    """A checkpoint of one file; without that file it is not complete."""
    folder = RunDir(output_dir).checkpoint(step)
    folder.mkdir(parents=True)
    (folder / "weights").write_text("abc")
    facts = {"items_seen": 8 * step, "items": 100, "global_batch": 8, "world_size": 2, "strategy": "ddp"}
    files = {"weights": FileDigest.of(folder / "weights")}
    Manifest.model_validate(facts | {"step": step, "precision": "fp32", "files": files}).save(folder)
    if not complete:
        (folder / "weights").unlink()
    return folder


@contextmanager
def launcher_at(output_dir: Path, answer: str = "save") -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds the run's lock and takes a stop request: it saves, vanishes, or never does anything."""
    attempt = RunDir(output_dir).attempts()[-1]
    attempt.launcher.unlink(missing_ok=True)
    process = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(output_dir), answer, str(os.getpid())])
    try:
        wait_for(attempt.launcher.exists)
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
    """Wait until it holds; a deadline that is missed is a failure."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
