"""Which checkpoint a run goes on from, and whether a plan can."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lft.core.checkpoints import MANIFEST, problem
from lft.core.run_dir import Attempt, RunDir
from lft.core.settings import RunSettings, Strategy
from lft.core.words import counted
from lft.launch.follow import Launcher, checkpoints, training_attempts
from lft.plan.launch_plan import LaunchPlan

STAYS = ("model.name", "model.revision", "data", "lora", "training.seed")
"""What a checkpoint's weights, and the rows it counts as done, depend on: settings and sections."""
MAY_CHANGE = ("data.max_length",)
"""But this: out of memory, shorter rows are the way to go on."""
FORMATS: dict[Strategy, str] = {"single": "whole", "ddp": "whole", "device-map": "whole"}
"""Strategies whose checkpoints are alike; each of the others has a format of its own, a part for each rank."""


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The newest checkpoint to go on from, if any, and in words those that are left out."""

    checkpoint: Path | None
    left_out: tuple[str, ...]
    began: Attempt | None
    """The newest attempt that started from the first step; None where it is not known."""


def resume_point(run_dir: RunDir) -> ResumePoint:
    """The newest complete checkpoint since the run last began with its first step.

    A launch on a used folder begins again, perhaps with other settings, and leaves the checkpoints of before in place.
    """
    began = _began(run_dir)
    launcher = Launcher.load(began.launcher) if began else None
    began_ns = launcher.started_ns if launcher else 0
    complete, incomplete = checkpoints(run_dir)
    own = [path for path in complete if (path / MANIFEST).stat().st_mtime_ns >= began_ns]
    left_out = [f"{path.name} is of an earlier start of this run" for path in complete if path not in own]
    left_out += [f"{path.name} {problem(path)}" for path in incomplete]
    while own and (damage := problem(own[-1])):
        left_out.append(f"{own.pop().name} {damage}")
    return ResumePoint(own[-1] if own else None, tuple(left_out), began)


def misfits(checkpoint: Path, before: LaunchPlan, now: LaunchPlan) -> list[str]:
    """Why `now` cannot go on from a checkpoint of a run that began as `before`, each with the way out. Pure."""
    return [
        *_other_settings(checkpoint.name, before.settings, now.settings),
        *_other_ranks(checkpoint.name, before, now),
        *_past_the_end(checkpoint.name, now.settings),
    ]


def _other_settings(name: str, before: RunSettings, now: RunSettings) -> Iterator[str]:
    earlier = before.by_name()
    for key, value in now.by_name().items():
        stays = any(f"{key}.".startswith(f"{kept}.") for kept in STAYS) and key not in MAY_CHANGE
        if stays and value != earlier[key]:
            was, asked_for = _typed(earlier[key]), _typed(value)
            way_out = shlex.join(["--set", f"{key}={was}"])
            yield f"{key}  is {asked_for}, and {name} was trained with {was}; {way_out}"


def _other_ranks(name: str, before: LaunchPlan, now: LaunchPlan) -> Iterator[str]:
    if FORMATS.get(before.strategy, before.strategy) != FORMATS.get(now.strategy, now.strategy):
        yield (
            f"launch.strategy  is {now.strategy}, and {name} is in the format of {before.strategy}; "
            f"--strategy {before.strategy}"
        )
    ranks, asked = before.topology.ranks, now.topology.ranks
    if before.strategy not in FORMATS and ranks != asked:
        option = "--cpu-procs" if before.topology.device == "cpu" else "--gpus"
        yield (
            f"{option}  makes {counted(asked, 'rank')}, and {name} has parts of {ranks}, as {before.strategy} keeps them; "
            f"{option} {before.topology.ranks_per_node}"
        )


def _past_the_end(name: str, now: RunSettings) -> Iterator[str]:
    most = now.training.max_steps
    step = int(name.rpartition("-")[2])
    if most is not None and step > most:
        yield f"training.max_steps  is {most}, and {name} is past it; --set training.max_steps={step} or more"


def _typed(value: object) -> str:
    """A value as it is typed after --set."""
    return value if isinstance(value, str) else json.dumps(value)


def _began(run_dir: RunDir) -> Attempt | None:
    """The newest attempt that started from the first step; None where it is not known."""
    for attempt in training_attempts(run_dir):
        try:
            if json.loads(attempt.order("train").read_bytes()).get("resume_from") is None:
                return attempt
        except (OSError, ValueError):
            continue
    return None
