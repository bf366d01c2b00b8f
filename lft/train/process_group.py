"""Joining the ranks, after everything that can be done apart has been done.

Rank 0 listens on a port the system chooses and publishes it in a file, so that no port has to be agreed on and two runs on
one machine cannot meet. Started by torchrun or accelerate, MASTER_ADDR and MASTER_PORT are used instead.
"""

import json
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed
from torch._C._distributed_c10d import TCPStore

from lft.core.errors import RendezvousError
from lft.core.files import write_text
from lft.core.precision import Device
from lft.core.rank import Rank, rendezvous_is_given

JOIN_TIMEOUT_SECONDS = 600
POLL_SECONDS = 0.05
HOST = "127.0.0.1"


def join(rank: Rank, device: Device, rendezvous: Path) -> None:
    """Make the process group of all ranks; with one rank there is none. Raises RendezvousError after a time-out."""
    if rank.world_size == 1:
        return
    if device == "cuda":
        torch.cuda.set_device(rank.local_rank)
    backend = "nccl" if device == "cuda" else "gloo"
    if rendezvous_is_given():
        distributed.init_process_group(backend, rank=rank.rank, world_size=rank.world_size)
        return
    store = _listen(rank, rendezvous) if rank.is_main else _connect(rank, rendezvous)
    distributed.init_process_group(backend, store=store, rank=rank.rank, world_size=rank.world_size)


def leave() -> None:
    """Wait for the others and end the group: a rank that exits while gloo's threads run may die of SIGABRT."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def agree(flag: bool, device: Device) -> bool:
    """Whether any rank says yes; every rank must ask at the same point."""
    if not distributed.is_initialized():
        return flag
    votes = torch.tensor(int(flag), device="cpu" if device == "cpu" else torch.cuda.current_device())
    distributed.all_reduce(votes, op=distributed.ReduceOp.MAX)
    return bool(votes.item())


def _listen(rank: Rank, rendezvous: Path) -> TCPStore:
    wait = timedelta(seconds=JOIN_TIMEOUT_SECONDS)
    store = TCPStore(HOST, 0, rank.world_size, is_master=True, timeout=wait, wait_for_workers=False)
    write_text(rendezvous, json.dumps({"host": HOST, "port": store.port}))
    return store


def _connect(rank: Rank, rendezvous: Path) -> TCPStore:
    deadline = time.monotonic() + JOIN_TIMEOUT_SECONDS
    while not rendezvous.exists():
        if time.monotonic() > deadline:
            raise RendezvousError(f"rank 0 did not say where it listens within {JOIN_TIMEOUT_SECONDS} s")
        time.sleep(POLL_SECONDS)
    address = json.loads(rendezvous.read_text(encoding="utf-8"))
    wait = timedelta(seconds=JOIN_TIMEOUT_SECONDS)
    return TCPStore(address["host"], address["port"], rank.world_size, is_master=False, timeout=wait)
