"""Which checkpoint a run goes on from, by which attempt it was written, and what is moved out of its way."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lft.core.checkpoints import PREFIX, folders, problem, step_of
from lft.core.errors import DONE, STOPPED, SettingsError
from lft.core.run_dir import Attempt, RunDir
from lft.launch.follow import read_beats, start_of, training_attempts
from lft.launch.outcome import Outcome
from lft.launch.restart import Brake


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The checkpoint to go on from, if any, the attempt that wrote it, and in words those that are left out."""

    checkpoint: Path | None = None
    written_by: Attempt | None = None
    """None where its run's folder does not tell."""
    left_out: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """How many steps it has."""
        return step_of(self.checkpoint) if self.checkpoint else 0


def resume_point(run_dir: RunDir) -> ResumePoint:
    """The newest checkpoint of which every file is what was written.

    What lies in the output directory is the newest attempt's and that of those before it that it goes on from: each attempt
    moves away what is not (`set_aside`).
    """
    left_out = []
    for path in _candidates(run_dir):
        if damage := problem(path):
            left_out.append(f"{path.name} {damage}")
        elif (writer := _writer(path)) is None:
            left_out.append(f"{path.name} is of no attempt known here")
        else:
            return ResumePoint(path, writer, tuple(left_out))
    return ResumePoint(left_out=tuple(left_out))


def named_point(path: Path) -> ResumePoint:
    """The checkpoint that is asked for by its folder, or by that of its run. Raises SettingsError where it cannot be used."""
    path = path.expanduser().absolute()
    if not path.name.removeprefix(PREFIX).isdigit():
        point = resume_point(RunDir(path))
        if point.checkpoint is None:
            found = f": {'; '.join(point.left_out)}" if point.left_out else ""
            raise SettingsError([f"--resume {path}  holds no checkpoint to go on from{found}"])
        return point
    if damage := problem(path):
        raise SettingsError([f"--resume {path}  {damage}"])
    return ResumePoint(path, _writer(path))


def set_aside(run_dir: RunDir, number: int, start: Path | None) -> Path | None:
    """Move what attempt `number` does not go on from to a folder of its own, and return that; None where there is nothing.

    That is each checkpoint of a later step than its start and, where it starts from nothing here, the adapter and the report
    of before. The oldest goes first: if this is interrupted, what is left is still the newest of before. Raises OSError.
    """
    goes_on_here = start is not None and start.parent == run_dir.output_dir
    step = step_of(start) if start and goes_on_here else 0
    old = [path for path in folders(run_dir.output_dir) if step_of(path) > step]
    if not goes_on_here:
        old += [path for path in (*run_dir.results, *run_dir.adapter) if path.exists()]
    folder = run_dir.before_attempt(number)
    for path in old:
        folder.mkdir(exist_ok=True)
        path.rename(folder / path.name)
    return folder if old else None


def steps_done(attempt: Attempt) -> int:
    """How many steps of the run an attempt has reached, from its first one on."""
    beats = read_beats(attempt).values()
    return max((beat.step or 0 for beat in beats if beat.stage in ("training", "evaluating")), default=0)


def brake_of(run_dir: RunDir) -> Brake:
    """What the attempts since the run last began tell of its progress; those that its user stopped tell nothing."""
    brake, lineage = Brake(), list[Attempt]()
    for attempt in training_attempts(run_dir):
        lineage.append(attempt)
        if start_of(attempt) is None and run_dir.before_attempt(attempt.number).exists():
            break  # it began anew, and what others had reached was moved away
    for attempt in reversed(lineage):
        outcome = Outcome.load(attempt.outcome)
        was_started = attempt.launcher.exists()
        if was_started and (outcome is None or outcome.exit_code not in (DONE, STOPPED)):
            brake.note(steps_done(attempt))
    return brake


def _candidates(run_dir: RunDir) -> Iterator[Path]:
    """Every folder named like a checkpoint, the newest first; then that of another run from which this one went on."""
    yield from reversed(folders(run_dir.output_dir))
    for attempt in training_attempts(run_dir)[:1]:
        start = start_of(attempt)
        if start and start.parent != run_dir.output_dir and start.is_dir():
            yield start


def _writer(checkpoint: Path) -> Attempt | None:
    """The newest attempt of its run that began before its step: later ones went on from here, or from behind it."""
    run_dir, step = RunDir(checkpoint.parent), step_of(checkpoint)
    for attempt in training_attempts(run_dir):
        start = start_of(attempt)
        if start is None or step_of(start) < step:
            return attempt
    return None
