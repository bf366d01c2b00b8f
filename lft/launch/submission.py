"""What `lft submit` leaves in a run directory: settings, script, a line for each job; and the run's newest job by them."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lft.core.files import write_text
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.core.settings_file import to_yaml
from lft.plan.sbatch_script import JOBS, SCRIPT, SETTINGS, sbatch_script

SWEEP = "sweep.json"


def write_job(settings: RunSettings, python: str, *, explicit: bool = False, requeue_exit: bool = False) -> Path:
    """Write a run's settings and its batch script; returns the script. `explicit`, `requeue_exit`: see there."""
    folder = RunDir(settings.output_dir).slurm
    write_text(folder / SETTINGS, to_yaml(settings))
    write_text(folder / SCRIPT, sbatch_script(settings, python, explicit=explicit, requeue_exit=requeue_exit))
    return folder / SCRIPT


def write_sweep(
    settings: RunSettings,
    elements: Sequence[tuple[Mapping[str, Any], RunSettings]],
    python: str,
    *,
    requeue_exit: bool = False,
) -> Path:
    """Write one script for all runs of a sweep, and each one's settings; `elements` are changes and what they make."""
    folder = RunDir(settings.output_dir).slurm
    for _, element in elements:
        write_text(RunDir(element.output_dir).slurm / SETTINGS, to_yaml(element))
    write_text(folder / SWEEP, json.dumps([dict(changes) for changes, _ in elements], indent=1))
    write_text(folder / SCRIPT, sbatch_script(settings, python, len(elements), requeue_exit=requeue_exit))
    return folder / SCRIPT


def note_job(run_dir: RunDir, job_id: str) -> None:
    """Add a line for a job that was submitted; the batch script adds one where it has to submit another."""
    run_dir.slurm.mkdir(parents=True, exist_ok=True)
    with (run_dir.slurm / JOBS).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"job_id": job_id, "submitted_ns": time.time_ns()}) + "\n")


def job_ids(run_dir: RunDir) -> list[str]:
    """The run's jobs, the newest last; requeued, a job keeps its id."""
    try:
        lines = (run_dir.slurm / JOBS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(str(json.loads(line)["job_id"]))
        except (ValueError, KeyError, TypeError):  # half a line: a full disk
            continue
    return found


def sweep_of(run_dir: RunDir) -> list[dict[str, Any]]:
    """The changes of each element of a sweep; none where the folder holds one run."""
    try:
        sweep: list[dict[str, Any]] = json.loads((run_dir.slurm / SWEEP).read_bytes())
    except (OSError, ValueError):
        return []
    return sweep
