"""The roll call before any collective: who never comes, comes twice, or was told to train something else, is named.

Each rank announces itself in rank 0's store. The first to know that the ranks cannot train together tells the rest why.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence

from torch._C._distributed_c10d import Store
from torch.distributed import DistError

from lft.core.errors import RendezvousError
from lft.core.rank import Rank

POLL_SECONDS = 0.05
LINGER_SECONDS = 1.0
REFUSED = "refused"
ASK_NODE_RANKS = "is --node-rank different on each node?"


def call_roll(store: Store, rank: Rank, terms: Mapping[str, object], deadline: float, timeout_seconds: float) -> None:
    """Wait until all ranks are here, and see that all have the same `terms` (JSON values by their names).

    Raises RendezvousError, on every rank that waits, where they cannot train together.
    """
    missing = list(range(rank.world_size))
    try:
        if store.add(f"came/{rank.rank}", 1) > 1:
            _refuse(store, RendezvousError(f"rank {rank.rank} came twice", next_step=ASK_NODE_RANKS))
        _announce(store, rank.rank, terms)
        while missing := [other for other in missing if not store.check([_key(other)])]:
            if time.monotonic() > deadline:
                _refuse(store, not_joined(missing, rank.world_size, timeout_seconds))
            _leave_if_refused(store, rank)
            time.sleep(POLL_SECONDS)
        _compare(store, rank)
        _leave_if_refused(store, rank)
    except DistError as error:
        others = _words([other for other in missing if other != rank.rank])
        raise RendezvousError(f"rank 0 left before {others} of {rank.world_size} had joined: {error}") from None


def not_joined(ranks: Sequence[int], world_size: int, timeout_seconds: float) -> RendezvousError:
    """The error that names who did not come."""
    return RendezvousError(f"{_words(ranks)} of {world_size} did not join within {timeout_seconds:g} s")


def _announce(store: Store, rank: int, terms: Mapping[str, object]) -> None:
    """The digest is what every rank reads of every other one; the terms themselves are for those that differ."""
    text = json.dumps(terms, sort_keys=True)
    store.set(f"terms/{rank}", text)
    store.set(_key(rank), hashlib.sha256(text.encode()).hexdigest())


def _compare(store: Store, rank: Rank) -> None:
    digests = store.multi_get([_key(other) for other in range(rank.world_size)])
    different = [other for other, digest in enumerate(digests) if digest != digests[0]]
    if not different:
        return
    first, other = (json.loads(store.get(f"terms/{number}")) for number in (0, different[0]))
    values = [
        f"{name} is {other.get(name)}, not {first.get(name)}"
        for name in sorted(first.keys() | other.keys())
        if first.get(name) != other.get(name)
    ]
    message = f"{_words(different)} of {rank.world_size} cannot train with rank 0: {'; '.join(values)}"
    again = "start every node with the same settings"
    if first.get("resume_from") != other.get("resume_from"):
        again = "every node must see the checkpoints of the output directory; where it cannot be shared, --resume never on all"
    _refuse(store, RendezvousError(message, next_step=again))


def _refuse(store: Store, error: RendezvousError) -> None:
    store.set(REFUSED, json.dumps([error.message, error.next_step]))


def _leave_if_refused(store: Store, rank: Rank) -> None:
    if not store.check([REFUSED]):
        return
    message, next_step = json.loads(store.get(REFUSED))
    if rank.is_main:
        time.sleep(LINGER_SECONDS)  # the store ends with this process, and the others still have to look
    raise RendezvousError(message, next_step=next_step)


def _key(rank: int) -> str:
    return f"joined/{rank}"


def _words(ranks: Sequence[int]) -> str:
    """`rank 1`, `ranks 1 and 3`, `ranks 1, 2 and 3`."""
    *most, last = map(str, ranks)
    return f"ranks {', '.join(most)} and {last}" if most else f"rank {last}"
