"""Reading back the plan of a finished run, for the verbs that work on one."""

import shlex
from pathlib import Path

from lft.core.errors import PreflightError, SettingsError
from lft.core.run_dir import RunDir
from lft.launch.follow import read_plan
from lft.plan.launch_plan import LaunchPlan


def finished_plan(output_dir: Path) -> LaunchPlan:
    """The plan that made the adapter in `output_dir`, as its next attempt. Raises SettingsError, PreflightError."""
    run_dir = RunDir(output_dir.expanduser().absolute())
    if not run_dir.output_dir.is_dir():
        raise SettingsError([f"{output_dir} is not a folder; the output_dir of a finished run is expected"])
    if not run_dir.attempts():
        raise PreflightError(f"{output_dir} holds no run", next_step="name the output_dir of a run")
    finished = [attempt for attempt in run_dir.attempts() if attempt.report("train", 0).exists()]
    if not finished or not run_dir.adapter_config.exists():
        raise PreflightError(
            f"the run in {output_dir} has no adapter yet",
            next_step=f"{shlex.join(['lft', 'resume', str(output_dir)])} finishes it",
        )
    plan = read_plan(finished[-1])
    # the folder may have been moved or copied since
    settings = plan.settings.model_copy(update={"output_dir": run_dir.output_dir})
    return plan.model_copy(update={"settings": settings, "attempt": run_dir.next_attempt().number})
