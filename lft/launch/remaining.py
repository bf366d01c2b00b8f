"""What a run that has trained still lacks of what its settings ask for."""

import shutil
from typing import Literal, get_args

from lft.core.errors import DONE
from lft.core.run_dir import Attempt, RunDir
from lft.core.settings import RunSettings
from lft.launch.follow import is_trained, training_attempts
from lft.launch.outcome import Outcome

Task = Literal["benchmark", "report", "upload"]
TASKS: tuple[Task, ...] = get_args(Task)
"""In their order."""


def remaining(run_dir: RunDir, settings: RunSettings) -> tuple[Task, ...] | None:
    """The tasks after training that are left, in their order; None where the run has not trained to its end."""
    if not is_trained(run_dir):
        return None
    trained = training_attempts(run_dir)[0]
    since = [attempt for attempt in run_dir.attempts() if attempt.number >= trained.number]
    ends = [end for attempt in since if (end := Outcome.load(attempt.outcome))]
    tasks: list[Task] = []
    if settings.has_benchmark and not any(attempt.report("benchmark", 0).exists() for attempt in since):
        tasks.append("benchmark")
    if tasks or not run_dir.report.exists() or not any(end.exit_code == DONE for end in ends):
        tasks.append("report")
    wish = settings.upload
    if wish.repo_name and not any(end.uploaded.endswith(f"/{wish.page}") for end in ends):
        tasks.append("upload")
    return tuple(tasks)


def forget_first_try(attempt: Attempt) -> None:
    """Before a benchmark's second try in an attempt: what its ranks took is free again, and their failures are put aside."""
    shutil.rmtree(attempt.claims, ignore_errors=True)
    failures = attempt.failure(0).parent
    if failures.exists():
        failures.rename(failures.with_name("failures-of-the-first-try"))
