"""A run read from its folder alone, also after its launcher has gone: attempts, how they ended, how far the newest is."""

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import median_high
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lft.core.beat import Beat
from lft.core.checkpoints import MANIFEST, complete, folders
from lft.core.errors import PreflightError, SettingsError
from lft.core.order import WorkerReport
from lft.core.run_dir import Attempt, RunDir
from lft.core.run_lock import is_held
from lft.core.settings import RunSettings
from lft.launch.outcome import Outcome
from lft.launch.pace import Pace, read_pace
from lft.launch.submission import job_ids
from lft.launch.triage import all_reports
from lft.plan.launch_plan import LaunchPlan

LATE_SECONDS = 10.0
"""A rank heard this much longer ago than most is named; beats of ranks in step differ by a second and a step."""

State = Literal["running", "ended", "gone", "unwatched"]
"""`gone`: its launcher died without a word. `unwatched`: no launcher of lft wrote that it started it."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class Launcher(_Record):
    """The process that started an attempt."""

    pid: int
    host: str
    started_ns: int
    node: int = 0

    @classmethod
    def load(cls, path: Path) -> "Launcher | None":
        """Read it; None where there is none."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


class AttemptStatus(_Record):
    """One attempt: who ran it, and how it ended if it has."""

    number: int
    state: State
    launcher: Launcher | None
    outcome: Outcome | None
    resumed_from: str = ""
    """The checkpoint it went on from; nothing for the first step."""


class RankBeat(_Record):
    """What one rank was last heard to do; None: nothing yet."""

    rank: int
    beat: Beat | None


class Progress(_Record):
    """How far an attempt is. `stage`, `step` and `total` are those of most ranks, `pace` is told by rank 0."""

    stage: str
    step: int | None
    total: int | None
    heard_ns: int
    """When the newest beat of any rank was; 0 where there is none."""
    pace: Pace
    apart: tuple[RankBeat, ...]
    """The ranks that are in another stage, were heard much longer ago than most, or not at all."""


class RunStatus(_Record):
    """A run as it is now."""

    output_dir: Path
    is_alive: bool
    """A launcher holds the run's lock."""
    is_trained: bool
    """The newest attempt that trains has finished training: the adapter is its."""
    has_benchmark: bool
    """Whether it is asked for, and rows are held out for it."""
    attempts: tuple[AttemptStatus, ...]
    """The newest first; at least one."""
    progress: Progress | None
    """How far the newest attempt is, or was when its launcher went; None where it has ended."""
    checkpoints: tuple[str, ...]
    """Complete ones, the newest last."""
    saved_ns: int
    """When the newest of them was; 0 where there is none."""
    incomplete: tuple[str, ...]


def existing_run(output_dir: Path) -> RunDir:
    """The run in a folder. Raises SettingsError where there is none."""
    run_dir = RunDir(output_dir.expanduser().absolute())
    if not run_dir.output_dir.is_dir():
        raise SettingsError([f"{output_dir} is not a folder; the output_dir of a run is expected"])
    if not run_dir.attempts():
        raise SettingsError([f"{output_dir} holds no run (no {output_dir / 'run' / 'attempt-0'})"])
    return run_dir


def submitted_run(output_dir: Path) -> RunDir | None:
    """The run, or sweep, in a folder that was submitted and has not begun; None where there is none."""
    run_dir = RunDir(output_dir.expanduser().absolute())
    return run_dir if job_ids(run_dir) and not run_dir.attempts() else None


def is_alive(run_dir: RunDir) -> bool:
    """Whether a launcher is at work on the run."""
    return is_held(run_dir)


def read_status(run_dir: RunDir) -> RunStatus:
    """Everything `lft status` shows. The run must have an attempt."""
    alive = is_alive(run_dir)  # first: what its launcher writes before it lets go is then found below
    attempts = run_dir.attempts()[::-1]
    newest = _attempt_status(attempts[0], alive)
    earlier = [_attempt_status(attempt, alive=False) for attempt in attempts[1:]]
    whole, incomplete = checkpoints(run_dir)
    return RunStatus(
        output_dir=run_dir.output_dir,
        is_alive=alive,
        is_trained=is_trained(run_dir),
        has_benchmark=_has_benchmark(attempts[0]),
        attempts=(newest, *earlier),
        progress=None if newest.state == "ended" else _progress(run_dir, attempts[0], newest.launcher),
        checkpoints=tuple(path.name for path in whole),
        saved_ns=_saved_ns(whole),
        incomplete=tuple(path.name for path in incomplete),
    )


def checkpoints(run_dir: RunDir) -> tuple[list[Path], list[Path]]:
    """The complete checkpoints of a run, and the others; each with the newest last."""
    whole = complete(run_dir.output_dir)
    return whole, [path for path in folders(run_dir.output_dir) if path not in whole]


def training_attempts(run_dir: RunDir) -> list[Attempt]:
    """The attempts that were told to train, the newest first."""
    return [attempt for attempt in reversed(run_dir.attempts()) if attempt.order("train").exists()]


def read_plan(attempt: Attempt) -> LaunchPlan:
    """What an attempt was planned to do. Raises PreflightError."""
    try:
        return LaunchPlan.model_validate_json(attempt.plan.read_bytes())
    except (OSError, ValidationError) as error:
        raise PreflightError(f"{attempt.plan} cannot be read: {error}") from None


def benchmark_here(run_dir: RunDir) -> LaunchPlan | None:
    """The plan of a folder in which nothing was trained but an adapter from elsewhere benchmarked. Raises PreflightError."""
    attempts = run_dir.attempts()
    plan = read_plan(attempts[-1]) if attempts and not training_attempts(run_dir) else None
    return plan if plan is not None and plan.adapter is not None else None


def start_of(attempt: Attempt) -> Path | None:
    """The checkpoint an attempt went on from; None for the first step, or where that cannot be read."""
    try:
        path = json.loads(attempt.order("train").read_bytes()).get("resume_from")
    except (OSError, ValueError):
        return None
    return Path(path) if path else None


def is_trained(run_dir: RunDir) -> bool:
    """Whether the newest attempt that trains has finished training, so that the adapter is its."""
    training = training_attempts(run_dir)[:1]
    return any(attempt.report("train", 0).exists() for attempt in training) and run_dir.adapter_config.exists()


def apart(beats: Mapping[int, Beat], ranks: int) -> tuple[RankBeat, ...]:
    """The ranks of 0..ranks-1 whose beat differs from that of most; one that is through with its steps is not late."""
    if not beats:
        return ()
    stage = _usual_stage(beats)
    late_ns = median_high(beat.time_ns for beat in beats.values()) - LATE_SECONDS * 1e9

    def differs(beat: Beat | None) -> bool:
        if beat is None or beat.stage != stage:
            return True
        is_through = beat.step is not None and beat.step == beat.total
        return beat.time_ns < late_ns and not is_through

    numbers = sorted(beats.keys() | range(ranks))
    return tuple(RankBeat(rank=rank, beat=beats.get(rank)) for rank in numbers if differs(beats.get(rank)))


def world_size(attempt: Attempt) -> int:
    """How many ranks the newest order of the attempt is for; 0 where it cannot be read."""
    for job in ("benchmark", "train"):
        try:
            return int(json.loads(attempt.order(job).read_bytes())["world_size"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return 0


def read_beats(attempt: Attempt) -> dict[int, Beat]:
    """The newest beat of every rank that has one."""
    return {rank: beat for rank, path in rank_files(attempt.beat(0).parent, ".json") if (beat := Beat.load(path))}


def read_failures(attempt: Attempt) -> list[WorkerReport]:
    """All failure reports that can be read: those that do not blame another rank first, then by time."""
    found = all_reports(attempt) if attempt.failure(0).parent.exists() else []
    return sorted(found, key=lambda report: (report.is_victim, report.time_ns))


def seconds_since(time_ns: int) -> float:
    """Seconds from a time in nanoseconds since the epoch until now; clocks of two hosts may differ."""
    return max(0.0, (time.time_ns() - time_ns) / 1e9)


def rank_files(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    """Rank and path of the files rank-N`suffix` in a folder, by rank; none where there is no such folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    numbers = [name[5 : -len(suffix)] for name in names if name.startswith("rank-") and name.endswith(suffix)]
    return [(rank, folder / f"rank-{rank}{suffix}") for rank in sorted(int(text) for text in numbers if text.isdigit())]


def _attempt_status(attempt: Attempt, alive: bool) -> AttemptStatus:
    launcher, outcome = Launcher.load(attempt.launcher), Outcome.load(attempt.outcome)
    state: State = "running" if alive else "gone" if launcher else "unwatched"
    start = start_of(attempt)
    return AttemptStatus(
        number=attempt.number,
        state="ended" if outcome else state,
        launcher=launcher,
        outcome=outcome,
        resumed_from=start.name if start else "",
    )


def _saved_ns(whole: list[Path]) -> int:
    try:
        return (whole[-1] / MANIFEST).stat().st_mtime_ns
    except (IndexError, FileNotFoundError):  # none, or just removed for a newer one
        return 0


def _has_benchmark(attempt: Attempt) -> bool:
    try:
        settings = json.loads(attempt.plan.read_bytes())["settings"]
        return RunSettings.model_validate(settings).has_benchmark
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _progress(run_dir: RunDir, attempt: Attempt, launcher: Launcher | None) -> Progress:
    ranks = world_size(attempt)
    beats = {rank: beat for rank, beat in read_beats(attempt).items() if rank < ranks or not ranks}
    started = launcher.started_ns / 1e9 if launcher else 0.0
    pace = read_pace(run_dir.events / "rank-0.jsonl", started)
    stage, step, total = pace.stage, pace.step, pace.total
    if beats:
        stage = _usual_stage(beats)
        farthest = max((beat for beat in beats.values() if beat.stage == stage), key=lambda beat: beat.step or 0)
        step, total = farthest.step, farthest.total
    return Progress(
        stage=stage,
        step=step,
        total=total,
        heard_ns=max((beat.time_ns for beat in beats.values()), default=0),
        pace=pace if pace.stage == stage else Pace(),
        apart=apart(beats, ranks),
    )


def _usual_stage(beats: Mapping[int, Beat]) -> str:
    return Counter(beat.stage for beat in beats.values()).most_common(1)[0][0]
