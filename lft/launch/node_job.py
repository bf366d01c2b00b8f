"""The part of a job that one node does: its ranks started, watched and ended."""

from collections.abc import Callable
from dataclasses import dataclass

from lft.core.events import Event, EventTail
from lft.core.order import Job
from lft.launch.hang import HangWatch
from lft.launch.ranks import Ranks
from lft.launch.stopping import StopRequests
from lft.launch.supervisor import EARLY_SECONDS, Ended, Watch, supervise
from lft.launch.triage import is_cause
from lft.plan.launch_plan import LaunchPlan

WORKING = {"training", "answering"}
"""Stages in which a rank has something to save."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """Whom a node's job listens to, and whom it tells."""

    stop: StopRequests
    observe: Callable[[Event], None]
    on_tick: Callable[[], None] = lambda: None
    is_called_off: Callable[[], bool] = lambda: False
    """Whether the other nodes have given the job up."""


def do_job(plan: LaunchPlan, job: Job, around: Around) -> tuple[Ended, bool]:
    """Run a job's ranks of this node, whose order is written, to their end; also whether there was something to save."""
    attempt, tail = plan.attempt_dir, EventTail(plan.run_dir.events, [f"rank-{rank}" for rank in plan.ranks_here(job)])
    stages: set[str] = set()

    def pass_on_events() -> None:
        around.on_tick()
        for event in tail.new_events():
            if event.kind == "stage":
                stages.add(event.data["name"])
            around.observe(event)

    def grace_seconds() -> float:
        # before they train the ranks have nothing to save, and may be waiting for one that has left already
        return plan.settings.launch.grace_seconds if stages & WORKING else EARLY_SECONDS

    timeout = plan.settings.launch.hang_timeout_seconds
    watch = Watch(
        stop=around.stop,
        hang=HangWatch(attempt, None if timeout == "auto" else timeout),
        grace_seconds=grace_seconds,
        is_cause=lambda exit_: is_cause(exit_, attempt),
        on_tick=pass_on_events,
        is_called_off=around.is_called_off,
    )
    with Ranks() as ranks:
        for rank in plan.ranks_here(job):
            environment = plan.environment(rank, job)
            ranks.start(rank, plan.argv(job), environment, log=attempt.log(rank), report=attempt.report(job, rank))
        ended = supervise(ranks, watch)
    return ended, bool(stages & WORKING)
