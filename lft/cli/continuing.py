"""Whether a launch begins a run, goes on with it or has only to finish it: read from its folder, and said in the plan."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lft.cli.planning import plan_here
from lft.cli.story import typed
from lft.core.checkpoints import Manifest
from lft.core.errors import PreflightError, SettingsError
from lft.core.run_dir import Attempt, RunDir
from lft.core.settings import RunSettings
from lft.core.words import counted
from lft.launch.follow import is_alive, is_trained, read_plan, read_status, training_attempts
from lft.launch.remaining import Task, remaining
from lft.launch.resuming import ResumePoint, named_point, resume_point
from lft.plan.changes import Change, arithmetic, changes
from lft.plan.launch_plan import LaunchPlan
from lft.plan.lines import Choice

AUTO, NEVER = "auto", "never"
BEGIN_ANEW = "another --output-dir, or --resume never, begins anew"


@dataclass(frozen=True, slots=True)
class Intent:
    """What a launch is going to do: train by the plan or, where `tasks` are given, only these; none: nothing."""

    plan: LaunchPlan
    tasks: tuple[Task, ...] | None = None


def intend(settings: RunSettings, resume: str = AUTO, *, explicit: bool = False) -> Intent:
    """Decide it. `resume` is auto, never, or a checkpoint or run to go on from.

    Raises SettingsError, with all of them, for changes the checkpoint cannot be used with and, unless a path is named or the
    call is `explicit`, for those after which the run would not end as it would have.
    """
    run_dir = RunDir(settings.output_dir)
    if resume == NEVER:
        return Intent(_told(plan_here(settings), _beginning(run_dir)))
    if resume == AUTO and is_trained(run_dir):
        trained_by = training_attempts(run_dir)[0]
        plan = _plan_after(trained_by, settings)
        differences = changes(_plan_of(trained_by), plan)
        if not any(_is_weighty(change) for change in differences):
            tasks = remaining(run_dir, settings) or ()
            return Intent(_told(plan, [_left(tasks), *_differing(differences)]), tasks)
        if not explicit:
            _refuse_more(run_dir, trained_by, differences)
    point = resume_point(run_dir) if resume == AUTO else named_point(Path(resume))
    return Intent(_go_on(point, settings, explicit=explicit or resume != AUTO))


def refuse_running(run_dir: RunDir) -> None:
    """Raise PreflightError, naming its launcher, where the run is going on: before anything is compared with it."""
    if not is_alive(run_dir):
        return
    output_dir = run_dir.output_dir
    attempts = read_status(run_dir).attempts if run_dir.attempts() else ()
    newest = f": attempt {attempts[0].number}" if attempts else ""
    who = f" ({attempts[0].launcher})" if attempts and attempts[0].launcher else ""
    raise PreflightError(
        f"{output_dir} is running{newest}{who}",
        next_step=f"{typed('status', output_dir)} --watch     or: {typed('stop', output_dir)}",
    )


def _go_on(point: ResumePoint, settings: RunSettings, *, explicit: bool) -> LaunchPlan:
    """The plan of going on from a checkpoint, or from the first step where there is none."""
    if point.checkpoint is None:
        plan = plan_here(settings)
        lines = [Choice(name="left out", value=words) for words in point.left_out]
        if plan.attempt > 0 or lines:
            lines = [Choice(name="resume", value="from the first step", reason="there is no checkpoint yet"), *lines]
        return _told(plan, lines)
    trained = Manifest.load(point.checkpoint)
    plan = _plan_after(point.written_by, settings) if point.written_by else plan_here(settings)
    if plan.precision is None:  # what was measured, or read, once is not to come out otherwise now
        plan = plan.model_copy(update={"precision": trained.precision})
    differences: list[Change] = []
    reason = "what it was trained with is not known: the folder of its run is not there"
    batch = ""
    if point.written_by:
        before = _plan_of(point.written_by).model_copy(update={"precision": trained.precision})
        differences, batch = changes(before, plan), arithmetic(before.batch, plan.batch)
        _refuse(point, plan, differences, explicit=explicit)
        exact = not any(change.effect == "inexact" for change in differences)
        reason = f"written by attempt {point.written_by.number}" + ("" if exact else "; no longer exact: see below")
    lines = [Choice(name="resume", value=f"from {point.checkpoint.name}", reason=reason)]
    lines += [Choice(name="left out", value=words) for words in point.left_out]
    lines += _differing(differences)
    lines += [Choice(name="differs", value=f"batch  {batch}")] if batch else []
    return _told(plan.model_copy(update={"resume_from": point.checkpoint}), lines)


def _refuse(point: ResumePoint, plan: LaunchPlan, differences: Sequence[Change], *, explicit: bool) -> None:
    assert point.checkpoint is not None
    name, most = point.checkpoint.name, plan.settings.training.max_steps
    unusable = [change.refusal(name) for change in differences if change.effect == "unusable"]
    if most is not None and point.step > most:
        way_out = f"--set training.max_steps={point.step} or more"
        unusable.append(f"training.max_steps  is {most}, and {name} is past it; {way_out}")
    inexact = [change.refusal(name) for change in differences if change.effect == "inexact" and not explicit]
    if not unusable and not inexact:
        return
    all_the_same = f"--resume {point.checkpoint} goes on all the same, no longer exactly; "
    raise SettingsError(
        [*unusable, *inexact],
        source=f"going on from {name}",
        next_step=f"change these back; or: {'' if unusable else all_the_same}{BEGIN_ANEW}",
    )


def _refuse_more(run_dir: RunDir, trained_by: Attempt, differences: Sequence[Change]) -> None:
    """Refuse to change what is already done; the way on, where there is one, is named."""
    mistakes = [change.refusal("the adapter") for change in differences if _is_weighty(change)]
    newest = resume_point(run_dir).checkpoint
    usable = newest and not any(change.effect == "unusable" for change in differences)
    on = f"--resume {newest} trains on from there, not exactly as one run would have; " if usable else ""
    raise SettingsError(
        mistakes,
        source=f"going on with {run_dir.output_dir}, which attempt {trained_by.number} has trained to its end",
        next_step=f"{on}{BEGIN_ANEW}",
    )


def _plan_after(attempt: Attempt, settings: RunSettings) -> LaunchPlan:
    """The plan of now, with the global batch of before where none is asked for: its default follows the ranks."""
    batch = _plan_of(attempt).batch.global_batch
    if settings.training.global_batch_size is None:
        training = settings.training.model_copy(update={"global_batch_size": batch})
        settings = settings.model_copy(update={"training": training})
    try:
        return plan_here(settings)
    except SettingsError as error:
        if settings.training.global_batch_size != batch or "global_batch_size" not in error.message:
            raise
        raise SettingsError(
            error.mistakes,
            source="going on with the global batch of before",
            next_step=f"take ranks and a training.batch_size whose product divides {batch}",
        ) from None


def _plan_of(attempt: Attempt) -> LaunchPlan:
    try:
        return read_plan(attempt)
    except PreflightError as error:
        raise PreflightError(error.message, next_step=BEGIN_ANEW) from None


def _is_weighty(change: Change) -> bool:
    return change.effect in ("inexact", "unusable")


def _differing(differences: Sequence[Change]) -> list[Choice]:
    return [Choice(name="differs", value=change.describe()) for change in differences]


def _left(tasks: Sequence[Task]) -> Choice:
    value = f"trained; left to do: {', '.join(tasks)}" if tasks else "nothing left to do: the run is finished"
    return Choice(name="resume", value=value)


def _beginning(run_dir: RunDir) -> list[Choice]:
    """What `--resume never` leaves behind."""
    count = len(run_dir.attempts())
    moved = (
        f"checkpoints and adapter of {counted(count, 'earlier attempt')} are moved to run/ and kept" if count else ""
    )
    return [Choice(name="resume", value="never: from the first step", reason=moved)]


def _told(plan: LaunchPlan, lines: Sequence[Choice]) -> LaunchPlan:
    return plan.model_copy(update={"choices": (*plan.choices, *lines)})
