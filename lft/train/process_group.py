"""Joining the ranks, after everything that can be done apart has been done.

Rank 0 listens on a port the system chooses and publishes it in a file, so that no port has to be agreed on and two runs on
one machine cannot meet. Started by torchrun, accelerate or deepspeed, MASTER_ADDR and MASTER_PORT are used instead. Either
way the ranks have a roll call in rank 0's store before any collective (roll_call.py).
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from torch import distributed
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed import DistError
from torch.distributed.distributed_c10d import _set_pg_timeout

from lft.core.errors import RendezvousError
from lft.core.files import write_text
from lft.core.network import own_address
from lft.core.precision import Device
from lft.core.rank import GivenRendezvous, Rank, given_rendezvous, use_defaults
from lft.train.roll_call import ASK_NODE_RANKS, POLL_SECONDS, call_roll, not_joined

T = TypeVar("T")
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
HOST = "127.0.0.1"


def join(rank: Rank, device: Device, rendezvous: Path, timeout_seconds: float, terms: Mapping[str, object]) -> None:
    """Make the process group of all ranks; with one rank there is none.

    Raises RendezvousError, which names who is missing, when `timeout_seconds` have passed, or whose `terms` (what all must
    have been told alike, by name) are not those of rank 0.
    """
    if rank.world_size == 1:
        return
    given = given_rendezvous()
    use_defaults({"GLOO_SOCKET_IFNAME": gloo_interface(rank, given)})
    if device == "cuda":
        torch.cuda.set_device(rank.local_rank)
    deadline = time.monotonic() + timeout_seconds
    try:
        if given is not None and given.port:
            store = _meet_at(rank, given, deadline)
        else:
            store = _meet_by_file(rank, given.host if given else HOST, rendezvous, deadline)
    except (DistError, TimeoutError):
        raise not_joined([0], rank.world_size, timeout_seconds) from None
    call_roll(store, rank, terms, deadline, timeout_seconds)
    try:
        backend = "nccl" if device == "cuda" else "gloo"
        group = PrefixStore("group", store)
        distributed.init_process_group(
            backend, store=group, rank=rank.rank, world_size=rank.world_size, timeout=_left(deadline)
        )
    except (DistError, RuntimeError) as error:
        raise RendezvousError(f"all {rank.world_size} ranks came, but they cannot connect: {error}") from error
    _set_pg_timeout(COLLECTIVE_TIMEOUT)
    store.set_timeout(COLLECTIVE_TIMEOUT)


def leave() -> None:
    """Wait for the others and end the group: a rank that exits while gloo's threads run may die of SIGABRT."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def agree(flag: bool, device: Device) -> bool:
    """Whether any rank says yes; every rank must ask at the same point."""
    return agree_on([flag], device)[0]


def agree_on(flags: Sequence[bool], device: Device) -> list[bool]:
    """Of each question whether any rank says yes; every rank must ask the same ones at the same point."""
    if not distributed.is_initialized():
        return list(flags)
    votes = torch.tensor(list(map(int, flags)), device="cpu" if device == "cpu" else torch.cuda.current_device())
    distributed.all_reduce(votes, op=distributed.ReduceOp.MAX)
    return list(map(bool, votes.tolist()))


def gather_on_main(value: T) -> list[T]:
    """The values of all ranks in their order, on rank 0; an empty list elsewhere. Every rank must call it."""
    if not distributed.is_initialized():
        return [value]
    is_main = distributed.get_rank() == 0
    values: list[Any] = [None] * distributed.get_world_size() if is_main else []
    distributed.gather_object(value, values if is_main else None)
    return values


def _meet_by_file(rank: Rank, host: str, rendezvous: Path, deadline: float) -> Store:
    """Rank 0's store at `host`, found through the file in which rank 0 publishes its port."""
    if rank.world_size > rank.local_world_size and host == HOST:
        raise RendezvousError(
            f"{rank.world_size} ranks on several machines need an address to meet at",
            next_step="set MASTER_ADDR and MASTER_PORT to where rank 0 can listen",
        )
    if rank.is_main:
        store = TCPStore(host, 0, rank.world_size, is_master=True, timeout=_left(deadline), wait_for_workers=False)
        write_text(rendezvous, json.dumps({"host": host, "port": store.port}))
        return store
    while rendezvous.name not in os.listdir(
        rendezvous.parent
    ):  # NFS remembers that one name was absent, up to a minute
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(POLL_SECONDS)
    address = json.loads(rendezvous.read_text(encoding="utf-8"))
    return TCPStore(
        address["host"],
        address["port"],
        rank.world_size,
        is_master=False,
        timeout=_left(deadline),
        wait_for_workers=False,
    )


def _meet_at(rank: Rank, given: GivenRendezvous, deadline: float) -> Store:
    """The store at MASTER_ADDR and MASTER_PORT; each life of torchrun's ranks has a part of its own."""
    listens = rank.is_main and not given.is_served
    try:
        store = TCPStore(
            given.host,
            given.port,
            rank.world_size,
            is_master=listens,
            timeout=_left(deadline),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except DistError as error:
        if not (listens and "EADDRINUSE" in str(error)):
            raise
        raise RendezvousError(
            f"rank 0 cannot listen at {given.host}:{given.port}: the port is in use",
            next_step=f"{ASK_NODE_RANKS} If it is, another program has the port: take another one",
        ) from None
    return PrefixStore(f"lft/{given.life}", store)


def _left(deadline: float) -> timedelta:
    return timedelta(seconds=max(deadline - time.monotonic(), 1))


def gloo_interface(rank: Rank, given: GivenRendezvous | None) -> str:
    """The network interface gloo is to use; it would look up the host's own name, which need not resolve.

    Raises RendezvousError where there is no way to the given host.
    """
    if given is None or rank.world_size == rank.local_world_size:
        return next(name for name, _ in _addresses() if name.startswith("lo"))
    try:
        own = own_address(given.host)
    except OSError as error:
        raise RendezvousError(
            f"rank 0 is to listen at {given.host}:{given.port}, and there is no way to that host: {error.strerror}",
            next_step="check the host of --rdzv, or MASTER_ADDR: a name or address of node 0 that every node knows",
        ) from None
    return interface_of(own)


def interface_of(own_address: str) -> str:
    """The name of the network interface that has an address of this machine; nothing where none has."""
    return next((name for name, address in _addresses() if address == own_address), "")


def _addresses() -> list[tuple[str, str]]:
    return [(name, each.address.split("%")[0]) for name, found in psutil.net_if_addrs().items() for each in found]
