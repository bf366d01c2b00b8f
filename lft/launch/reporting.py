"""The page of a run: its facts gathered from its folder, at any time, and written as run/report.html."""

import shlex
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from lft.core.errors import DONE, SAVED, STOPPED
from lft.core.order import Job, WorkerReport
from lft.core.run_dir import Attempt, RunDir
from lft.core.settings import BenchmarkSettings, RunSettings
from lft.launch.ending import told_end
from lft.launch.follow import (
    AttemptStatus,
    Launcher,
    benchmark_here,
    is_trained,
    read_plan,
    read_status,
    start_of,
    training_attempts,
)
from lft.launch.restart import benchmark_again
from lft.plan.launch_plan import LaunchPlan
from lft.publish.history import read_history
from lft.publish.report import Report, make_report, read_report
from lft.publish.run_facts import AttemptFacts, Choice, RunFacts, State

PARTS = ("weights", "activations", "logits", "adapters", "gradients", "optimizer", "framework", "loading")
"""Of MemoryPrediction, in the order they are shown in."""


def read_facts(run_dir: RunDir) -> RunFacts:
    """Everything about a run that has an attempt. Raises PreflightError where its plan cannot be read."""
    elsewhere = benchmark_here(run_dir)
    plan = elsewhere or read_plan((training_attempts(run_dir) or run_dir.attempts())[0])
    memory = plan.memory.model_dump(include=set(PARTS)) if plan.memory else {}
    report = _report(run_dir, plan)
    return RunFacts(
        output_dir=run_dir.output_dir,
        settings=_with_benchmark_of(report, plan.settings),
        report=report,
        choices=tuple(Choice(each.name, each.value, each.reason) for each in plan.choices),
        notices=plan.notices,
        memory_bytes={name: memory[name] for name in PARTS if memory.get(name)},
        memory_unit=plan.memory.unit if plan.memory else "",
        attempts=tuple(map(_attempt, reversed(read_status(run_dir).attempts), run_dir.attempts())),
        history=read_history(run_dir.events / "rank-0.jsonl", _began(run_dir)),
        again=benchmark_again(elsewhere) if elsewhere else "",
    )


def _with_benchmark_of(report: Report, settings: RunSettings) -> RunSettings:
    """The settings of the training, and those of the benchmark whose scores are shown, which may be a later one."""
    if report["benchmark"] is None:
        return settings
    return settings.model_copy(update={"benchmark": BenchmarkSettings.model_validate(report["settings"]["benchmark"])})


def write_page(run_dir: RunDir) -> None:
    """Write run/report.html, and run/loss.png where losses are known. Raises PreflightError, OSError."""
    from lft.publish.loss_picture import (
        write_loss_picture,
    )  # with Pillow and Jinja, which nobody needs while ranks train
    from lft.publish.page import write_report_page

    facts = read_facts(run_dir)
    write_loss_picture(run_dir.loss_picture, facts.history)
    write_report_page(run_dir.page, facts)


def page_problem(run_dir: RunDir) -> str:
    """Write the page; what went wrong, in words: it is never worth a run."""
    try:
        write_page(run_dir)
    except Exception as error:
        again = shlex.join(["lft", "report", str(run_dir.output_dir)])
        return f"the report's page was not written: {type(error).__name__}: {error}; again: {again}"
    return ""


def measured(job: Job, attempts: Sequence[Attempt], first_rank: int = 0) -> list[dict[str, Any]]:
    """What the ranks measured, rank 0 first, in the newest of `attempts` in which this node's first rank finished the job.

    Ranks of other nodes are left out where they do not share the folder.
    """
    for attempt in reversed(attempts):
        paths = [path for rank, path in attempt.reports(job)]
        try:
            if attempt.report(job, first_rank) in paths:
                return [WorkerReport.load(path).metrics for path in paths]
        except ValidationError:  # damaged since
            continue
    return []


def _report(run_dir: RunDir, plan: LaunchPlan) -> Report:
    """The run's report.json; for a run without one, what is known so far."""
    written = read_report(run_dir) if is_trained(run_dir) or plan.adapter else None
    if written is not None:
        return written
    training = measured("train", run_dir.attempts()) if is_trained(run_dir) else []
    return make_report(plan.settings, training, [], plan.memory.total if plan.memory else None)


def _attempt(status: AttemptStatus, attempt: Attempt) -> AttemptFacts:
    state, words = _state(status, attempt)
    outcome, launcher = status.outcome, status.launcher
    return AttemptFacts(
        number=status.number,
        began=launcher.started_ns / 1e9 if launcher else 0.0,
        ended=outcome.ended_ns / 1e9 if outcome else 0.0,
        resumed_from=status.resumed_from,
        state=state,
        words=words,
        next_step=outcome.next_step if outcome else "",
    )


def _state(status: AttemptStatus, attempt: Attempt) -> tuple[State, str]:
    if status.outcome is not None:
        code = status.outcome.exit_code
        state: State = "done" if code == DONE else "stopped" if code in (SAVED, STOPPED) else "failed"
        return state, told_end(status.outcome)
    if status.state == "running":
        return "running", "running when this page was written"
    if status.state == "gone":
        return "unfinished", "its launcher is gone without a word"
    words = "started without a launcher of lft, which would say how it ended"
    return ("done", f"trained; {words}") if attempt.report("train", 0).exists() else ("unfinished", words)


def _began(run_dir: RunDir) -> float:
    """When the run was last begun with its first step, in seconds since the epoch; 0 where nobody wrote that down."""
    for attempt in training_attempts(run_dir):
        if start_of(attempt) is None:
            launcher = Launcher.load(attempt.launcher)
            return launcher.started_ns / 1e9 if launcher else 0.0
    return 0.0
