"""An all-reduce between every two nodes: `python -m lft.train.pairs FOLDER NODE ADDRESS...`, one process a node.

In each round of a tournament every node has one partner, so that N nodes need N - 1 rounds. What a node finds with each
partner is written to FOLDER/pairs-NODE.json: seconds of an all-reduce of 4 MiB, or what went wrong.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed
from torch._C._distributed_c10d import TCPStore

from lft.core.files import write_text
from lft.core.network import own_address
from lft.core.rank import use_defaults
from lft.train.process_group import interface_of

PATIENCE = timedelta(seconds=20)
FLOATS = 2**20
REPEATS = 5
POLL_SECONDS = 0.02


def main(arguments: list[str]) -> None:
    """Meet every other node in turn."""
    folder, me, addresses = Path(arguments[0]), int(arguments[1]), arguments[2:]
    use_defaults({"GLOO_SOCKET_IFNAME": interface_of(own_address(addresses[me]))})
    found: dict[int, float | str] = {}
    for number, pairs in enumerate(rounds(len(addresses))):
        partner = next((sum(pair) - me for pair in pairs if me in pair), None)
        if partner is None:
            continue
        try:
            found[partner] = meet(folder / f"round-{number}-{min(me, partner)}.json", me, partner, addresses)
        except (RuntimeError, TimeoutError, OSError) as error:  # torch's own errors of connections are RuntimeErrors
            found[partner] = str(error).partition("\n")[0] or type(error).__name__
        write_text(folder / f"pairs-{me}.json", json.dumps(found))


def rounds(nodes: int) -> Iterator[list[tuple[int, int]]]:
    """The circle method: the first stays, the others move on by one; with an odd number one rests each round."""
    circle = list(range(nodes + nodes % 2))
    for _ in range(len(circle) - 1):
        half = len(circle) // 2
        pairs = zip(circle[:half], reversed(circle[half:]), strict=True)
        yield [(min(pair), max(pair)) for pair in pairs if max(pair) < nodes]
        circle = [circle[0], circle[-1], *circle[1:-1]]


def meet(published: Path, me: int, partner: int, addresses: list[str]) -> float:
    """Seconds of an all-reduce between two nodes; the one with the lower number listens."""
    first = min(me, partner)
    deadline = time.monotonic() + PATIENCE.total_seconds()
    if me == first:
        store = TCPStore(addresses[me], 0, 2, is_master=True, timeout=PATIENCE, wait_for_workers=False)
        write_text(published, json.dumps(store.port))
    else:
        while published.name not in os.listdir(published.parent):
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not listen within {PATIENCE.seconds} s")
            time.sleep(POLL_SECONDS)
        port = json.loads(published.read_text(encoding="utf-8"))
        store = TCPStore(addresses[first], port, 2, is_master=False, timeout=PATIENCE, wait_for_workers=False)
    has_gpu = torch.cuda.is_available()
    backend = "nccl" if has_gpu else "gloo"
    distributed.init_process_group(backend, store=store, rank=int(me != first), world_size=2, timeout=PATIENCE)
    try:
        numbers = torch.ones(FLOATS, device="cuda" if has_gpu else "cpu")
        distributed.all_reduce(numbers)
        started = time.monotonic()
        for _ in range(REPEATS):
            distributed.all_reduce(numbers)
        if numbers[0].item() != 2 ** (REPEATS + 1):
            raise RuntimeError("the sum of an all-reduce is wrong")
        return (time.monotonic() - started) / REPEATS
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # a node that did not answer must not hold up this one at exit
