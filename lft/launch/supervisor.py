"""Watching the ranks of one node until all have left: none hangs for ever, and their end is known for what it is."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from lft.core.errors import SAVED
from lft.launch.hang import Hang, HangWatch, find_odd_one
from lft.launch.ranks import POLL_SECONDS, Exit, Ranks
from lft.launch.stopping import StopRequests

SETTLE_SECONDS = 2.0
"""After the rank that failed has said why: how long the others may take to report what they saw."""
CAUSE_SECONDS = 30.0
"""How long they may take while those that failed only blame others: the cause may still be cleaning up."""
EARLY_SECONDS = 5.0
"""How long ranks that have nothing to save yet may take to leave when asked to stop."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended: every rank's exit, and the hang that ended it, if one did.

    `stacks` are those of ranks that had to be ended without having said anything, by rank.
    """

    exits: list[Exit]
    hang: Hang | None
    stacks: dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a supervisor asks and tells while it waits."""

    stop: StopRequests
    hang: HangWatch
    grace_seconds: Callable[[], float]
    """How long a stop may take, asked when one comes."""
    is_cause: Callable[[Exit], bool]
    """Whether a failed rank failed by itself, and not because of another one."""
    on_tick: Callable[[], None]
    is_called_off: Callable[[], bool] = lambda: False
    """Whether other nodes have given the job up; then this node's ranks may settle, as after a failure of their own."""


def supervise(ranks: Ranks, watch: Watch) -> Ended:
    """Wait until all ranks have left, or must be made to: after a failure, a stop that takes too long, or a hang."""
    kill_at = settled_at = float("inf")
    asked, failed, hang = 0, 0, None
    while running := ranks.running():
        watch.on_tick()
        now = time.monotonic()
        failures = [exit_ for exit_ in ranks.exits() if exit_.has_failed]
        if len(failures) > failed:
            is_known = any(map(watch.is_cause, failures))
            wait = SETTLE_SECONDS if is_known else CAUSE_SECONDS
            settled_at = min(settled_at, now + wait) if is_known or not failed else settled_at
            failed = len(failures)
        if watch.is_called_off():
            settled_at = min(settled_at, now + SETTLE_SECONDS)
        # a rank that was signalled itself, before it could agree with the others, has left them waiting
        if not asked and (watch.stop.look() or any(exit_.code == SAVED for exit_ in ranks.exits())):
            asked, kill_at = 1, now + watch.grace_seconds()
            ranks.ask_to_stop()
        if now > min(kill_at, settled_at) or watch.stop.look() > 1:
            break
        if not failed and not asked:
            silent = watch.hang.silent_seconds(running)
            if silent > watch.hang.limit_seconds(running):
                hang = _explain(ranks, watch.hang, running, silent)
                break
        time.sleep(POLL_SECONDS)
    stacks = {}
    if failed and running and not hang and not any(map(watch.is_cause, ranks.exits())):
        stacks = ranks.dump_stacks(running)
    ranks.kill()
    watch.on_tick()
    return Ended(ranks.exits(), hang, stacks)


def _explain(ranks: Ranks, hang: HangWatch, running: list[int], silent: float) -> Hang:
    states = {rank: ranks.state(rank) for rank in running}
    return find_odd_one(hang.beats, states, ranks.dump_stacks(running), silent)
