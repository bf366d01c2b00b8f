"""The plan of a run on this machine: the one place where its facts are gathered for the verbs that plan."""

from lft.core.hardware import look_at_machine
from lft.core.model_facts import read_model_facts
from lft.core.rows import about_rows
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.plan.launch_plan import LaunchPlan, make_plan


def plan_here(settings: RunSettings) -> LaunchPlan:
    """The plan of the next attempt. Raises SettingsError or PreflightError for what cannot work here."""
    attempt = RunDir(settings.output_dir).next_attempt().number
    return make_plan(settings, look_at_machine(), read_model_facts(settings.model), attempt, about_rows(settings.data))
