"""After running out of memory: the next plan that fits, by arithmetic. Pure."""

from dataclasses import replace

from lft.core.hardware import Machine
from lft.core.model_facts import ModelFacts, UnknownModel
from lft.plan.launch_plan import LaunchPlan
from lft.plan.smaller import Predictor, SmallerRun, first_that_fits
from lft.plan.strategy import possible_strategies, with_checkpointing

ENOUGH_LESS = 0.9
"""What was predicted to fit did not: the next try needs at least a tenth less."""


def next_that_fits(
    plan: LaunchPlan,
    machine: Machine,
    model: ModelFacts | UnknownModel,
    held_bytes: int = 0,
) -> SmallerRun | None:
    """The first smaller run predicted to fit, and to need a tenth less than `plan`, which ran out of memory.

    A checkpoint serves every strategy. `held_bytes` is what the rank had when there was no more, 0 where that is not known.
    None where the model is unknown or nothing smaller fits.
    """
    if plan.memory is None or isinstance(model, UnknownModel):
        return None
    settings = with_checkpointing(plan.settings, plan.gradient_checkpointing)
    launch = settings.launch.model_copy(update={"strategy": "auto"})
    others = possible_strategies(settings.model_copy(update={"launch": launch}), machine, plan.topology)
    strategies = [plan.strategy, *(strategy for strategy in others if strategy != plan.strategy)]
    room = min(plan.memory.total, held_bytes or plan.memory.total)
    predict = Predictor(machine, plan.topology, plan.precision, model)
    found = first_that_fits(settings, strategies, predict, int(ENOUGH_LESS * room))
    if found is None or not held_bytes:
        return found
    return replace(found, memory=found.memory.model_copy(update={"available": held_bytes}))
