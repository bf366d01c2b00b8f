"""Which checkpoint a run goes on from."""

import json
from dataclasses import dataclass
from pathlib import Path

from lft.core.run_dir import MANIFEST, RunDir
from lft.launch.follow import Launcher, checkpoints, training_attempts


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The newest checkpoint to go on from, if any, and in words those that are left out."""

    checkpoint: Path | None
    left_out: tuple[str, ...]


def resume_point(run_dir: RunDir) -> ResumePoint:
    """The newest complete checkpoint since the run last began with its first step.

    A launch on a used folder begins again, perhaps with other settings, and leaves the checkpoints of before in place.
    """
    began_ns = _began_ns(run_dir)
    complete, incomplete = checkpoints(run_dir)
    own = [path for path in complete if (path / MANIFEST).stat().st_mtime_ns >= began_ns]
    newest = own[-1] if own else None
    left_out = [f"{path.name} is of an earlier start of this run" for path in complete if path not in own]
    left_out += [f"{path.name} is not complete" for path in incomplete]
    return ResumePoint(newest, tuple(left_out))


def _began_ns(run_dir: RunDir) -> int:
    """When the newest attempt that started from the first step did; 0 where it is not known."""
    for attempt in training_attempts(run_dir):
        try:
            is_first = json.loads(attempt.order("train").read_bytes()).get("resume_from") is None
        except (OSError, ValueError):
            continue
        if is_first:
            launcher = Launcher.load(attempt.launcher)
            return launcher.started_ns if launcher else 0
    return 0
