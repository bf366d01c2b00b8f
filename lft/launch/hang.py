"""Noticing that no rank goes on, from their beats; and telling which of them holds up the others, from their stacks."""

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from lft.core.beat import Beat
from lft.core.run_dir import Attempt

LOADING_SECONDS = 1800.0
"""Before steps are measured: a large model may come over a slow network, a cache may be built."""
SHORTEST_SECONDS = 120.0
SLOWEST_STEPS = 20
LOOK_SECONDS = 1.0
IN_STACKS_OF_WAITING = ("torch/distributed/", "torch/autograd/graph.py", "deepspeed/comm/")
"""Where a rank stands that waits for others; DDP's sums are waited for inside the backward pass."""


@dataclass(frozen=True, slots=True)
class Hang:
    """No running rank has gone on for `seconds`; `rank` is the one that holds up the others, as far as can be told."""

    rank: int
    why: str
    seconds: float
    beat: Beat | None
    stack: str


class HangWatch:
    """Follows the beats of this node's ranks."""

    def __init__(self, attempt: Attempt, timeout_seconds: float | None) -> None:
        """`timeout_seconds` holds once a step is done; None: SLOWEST_STEPS times the slowest step seen.

        Before that it is LOADING_SECONDS in any case: a timeout chosen for steps must not end a slow start.
        """
        self.timeout_seconds = timeout_seconds
        self.beats: dict[int, Beat] = {}
        self._attempt = attempt
        self._went_on: dict[int, float] = {}
        self._slowest_step = 0.0
        self._looked = float("-inf")

    def silent_seconds(self, running: Collection[int]) -> float:
        """How long no rank of `running` has gone on."""
        self._look(running)
        return min((time.monotonic() - self._went_on[rank] for rank in running), default=0.0)

    def limit_seconds(self, running: Collection[int]) -> float:
        """How long they may be silent."""
        if not all(self._beat(rank).step for rank in running):
            return LOADING_SECONDS
        if self.timeout_seconds is not None:
            return self.timeout_seconds
        measured = max(SHORTEST_SECONDS, SLOWEST_STEPS * self._slowest_step)
        return measured if self._slowest_step else LOADING_SECONDS

    def _look(self, running: Collection[int]) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        for rank in running:
            self._went_on.setdefault(rank, now)
            beat, before = Beat.load(self._attempt.beat(rank)), self._beat(rank)
            if beat is None or beat == before:
                continue
            self.beats[rank], self._went_on[rank] = beat, now
            steps = (beat.step or 0) - (before.step or 0)
            if beat.stage == before.stage and steps > 0 and before.step:  # the first step also warms up
                self._slowest_step = max(self._slowest_step, (beat.time_ns - before.time_ns) / 1e9 / steps)

    def _beat(self, rank: int) -> Beat:
        return self.beats.get(rank) or Beat(stage="", time_ns=0)


def find_odd_one(
    beats: Mapping[int, Beat], states: Mapping[int, str], stacks: Mapping[int, str], seconds: float
) -> Hang:
    """The rank that holds up the others: a stopped one, else one that does not wait in a collective, else the last.

    `states` are the kernel's letters by rank, `stacks` what faulthandler wrote. Pure.
    """
    ranks = sorted(states)
    stopped = [rank for rank in ranks if states[rank] in ("T", "t")]
    own = {rank: main_stack(stacks.get(rank, "")) for rank in ranks}
    busy = [rank for rank in ranks if own[rank] and not is_waiting(own[rank])]
    behind = sorted(ranks, key=lambda rank: (beats[rank].step or 0, beats[rank].time_ns) if rank in beats else (0, 0))
    if stopped:
        odd, why = stopped[0], "its process is stopped (state T: a debugger, or kill -STOP)"
    elif len(ranks) > len(busy) > 0:
        odd, why = busy[0], "the others wait for it"
        if states[odd] == "D":
            why += "; it waits for a disk or a network file system (state D)"
    elif len(ranks) == 1:
        odd, why = ranks[0], "its stack is below"
    else:
        odd, why = behind[0], "the ranks all wait; it was heard of least recently"
    return Hang(rank=odd, why=why, seconds=seconds, beat=beats.get(odd), stack=own[odd])


def main_stack(dump: str) -> str:
    """The main thread's stack out of a faulthandler dump, innermost call first; nothing where there is none."""
    found = re.search(r"^Current thread .*\n((?:  .*\n?)+)", dump, re.MULTILINE)
    return found.group(1).rstrip() if found else ""


def is_waiting(stack: str) -> bool:
    """Whether a stack ends where ranks wait for each other."""
    return any(place in line for line in stack.splitlines()[:4] for place in IN_STACKS_OF_WAITING)
