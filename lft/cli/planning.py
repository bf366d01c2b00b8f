"""The plan of a run on this machine: the one place where its facts are gathered for the verbs that plan."""

from lft.core.hardware import look_at_machine
from lft.core.model_facts import ModelFacts, UnknownModel, read_model_facts
from lft.core.rank import cache_folder
from lft.core.rows import PreparedFacts, about_rows
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.plan.launch_plan import LaunchPlan, make_plan


def plan_here(settings: RunSettings, model: ModelFacts | UnknownModel | None = None) -> LaunchPlan:
    """The plan of the next attempt; `model` where someone has looked at it already.

    Raises SettingsError or PreflightError for what cannot work here.
    """
    attempt = RunDir(settings.output_dir).next_attempt().number
    rows = _prepared(settings) or about_rows(settings.data)
    return make_plan(settings, look_at_machine(), model or read_model_facts(settings.model), attempt, rows)


def _prepared(settings: RunSettings) -> PreparedFacts | None:
    if not (cache_folder() / "tokens").is_dir():
        return None
    from lft.data.facts import (
        prepared_facts,  # with pyarrow, 0.1 s, which a plan without prepared data need not wait for
    )

    return prepared_facts(settings)
