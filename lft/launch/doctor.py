"""A SLURM allocation looked at before it is trusted: what its nodes have, how they reach each other, and which is at fault."""

import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median

from pydantic import BaseModel, ConfigDict

from lft.core.files import write_text
from lft.core.gpus import find_gpus
from lft.core.rank import cache_folder
from lft.core.words import data_size
from lft.launch.team import Team

LEAST_FREE_BYTES = 5 * 2**30
MOST_CLOCK_SECONDS = 1.0
"""Events of several nodes are put in order by their clocks."""
MOST_DELAY_SECONDS = 10.0
"""A shared folder that shows files later than this makes agents look lost."""
SLOW_PAIR = 5.0
"""An all-reduce this many times slower than the median one is told."""
PAIR_SECONDS = 30
POLL_SECONDS = 0.05


class NodeFacts(BaseModel):
    """What a node says of itself."""

    model_config = ConfigDict(frozen=True)

    name: str
    python: str
    packages: dict[str, str]
    gpus: tuple[str, ...]
    free_bytes: dict[str, int]
    """By folder: the run's, and the cache's."""
    pairs: dict[int, float | str] = {}
    """By the other node: seconds of an all-reduce, or what went wrong."""
    delay_seconds: float = 0.0
    """Until a file that the first node writes is seen here."""
    clock_seconds: float = 0.0
    """How far its clock is ahead of the first node's, beyond what the delay may explain."""


def own_facts(name: str, output_dir: Path) -> NodeFacts:
    """The facts of this node alone."""
    folders = {str(output_dir): output_dir, str(cache_folder()): cache_folder()}
    return NodeFacts(
        name=name,
        python=platform.python_version(),
        packages={each.metadata["Name"]: each.version for each in metadata.distributions()},
        gpus=tuple(gpu.name for gpu in find_gpus()),
        free_bytes={shown: shutil.disk_usage(_existing(folder)).free for shown, folder in folders.items()},
    )


def examine(team: Team, output_dir: Path, addresses: Sequence[str]) -> None:
    """This node's part: its facts, its answer to the first node's ping, its all-reduces; written to the team's folder."""
    if team.me.node > 0:
        _await(team.folder / "ping.json")
        write_text(team.folder / f"pong-{team.me.node}.json", json.dumps(time.time()))
    write_text(team.folder / f"facts-{team.me.node}.json", own_facts(team.me.name, output_dir).model_dump_json())
    argv = [sys.executable, "-m", "lft.train.pairs", str(team.folder), str(team.me.node), *addresses]
    subprocess.run(argv, stderr=subprocess.DEVNULL, check=False, timeout=PAIR_SECONDS * len(addresses))


def gather(team: Team) -> list[NodeFacts]:
    """The first node: everything that all nodes have written, after its own `ping`."""
    found = []
    for node in range(len(team.names)):
        facts = NodeFacts.model_validate_json((team.folder / f"facts-{node}.json").read_bytes())
        pairs = team.folder / f"pairs-{node}.json"
        values = json.loads(pairs.read_bytes()) if pairs.exists() else {}
        found.append(facts.model_copy(update={"pairs": {int(key): value for key, value in values.items()}}))
    return found


def ping(team: Team, seconds: float = MOST_DELAY_SECONDS * 2) -> dict[int, tuple[float, float]]:
    """The first node: for each other one how long a file takes to it, and how far its clock is ahead for certain."""
    sent = time.time()
    write_text(team.folder / "ping.json", json.dumps(sent))
    waiting, answers = set(team.others), dict[int, tuple[float, float]]()
    while waiting and time.time() < sent + seconds:
        there = set(os.listdir(team.folder))
        for node in [node for node in waiting if f"pong-{node}.json" in there]:
            received, theirs = time.time(), json.loads((team.folder / f"pong-{node}.json").read_bytes())
            ahead = max(theirs - received, 0.0) + min(theirs - sent, 0.0)
            answers[node] = ((received - sent) / 2, ahead)
            waiting.discard(node)
        time.sleep(POLL_SECONDS)
    return answers


def findings(nodes: Sequence[NodeFacts], gpus_wanted: int) -> list[str]:
    """What is wrong, each with the node at fault. Pure."""
    return [
        *_different(nodes),
        *_short_of(nodes, gpus_wanted),
        *_slow_folder(nodes),
        *_connections([(node.name, node.pairs) for node in nodes]),
    ]


def _different(nodes: Sequence[NodeFacts]) -> Iterator[str]:
    usual = Counter(node.python for node in nodes).most_common(1)[0][0]
    yield from (f"{node.name} has Python {node.python}, the others {usual}" for node in nodes if node.python != usual)
    for package in sorted({name for node in nodes for name in node.packages}):
        versions = [node.packages.get(package, "none") for node in nodes]
        most = Counter(versions).most_common(1)[0][0]
        strange = [(node.name, has) for node, has in zip(nodes, versions, strict=True) if has != most]
        yield from (f"{name} has {package} {has}, the others {most}" for name, has in strange)


def _short_of(nodes: Sequence[NodeFacts], gpus_wanted: int) -> Iterator[str]:
    for node in nodes:
        if len(node.gpus) < gpus_wanted:
            yield f"{node.name} shows {len(node.gpus)} of {gpus_wanted} GPUs"
        for folder, free in node.free_bytes.items():
            if free < LEAST_FREE_BYTES:
                yield f"{node.name} has {data_size(free)} free in {folder}"


def _slow_folder(nodes: Sequence[NodeFacts]) -> Iterator[str]:
    for node in nodes:
        if node.delay_seconds > MOST_DELAY_SECONDS:
            yield f"{node.name} sees files of the shared folder {node.delay_seconds:.0f} s late"
        if abs(node.clock_seconds) > MOST_CLOCK_SECONDS:
            side = "ahead of" if node.clock_seconds > 0 else "behind"
            yield f"{node.name}'s clock is {abs(node.clock_seconds):.0f} s {side} {nodes[0].name}'s"


def _connections(nodes: Sequence[tuple[str, Mapping[int, float | str]]]) -> Iterator[str]:
    """Broken and slow pairs; a node that is in more than one of them is at fault, else both are named."""
    times = [value for _, pairs in nodes for value in pairs.values() if isinstance(value, float)]
    slow = SLOW_PAIR * median(times) if times else 0.0
    bad: dict[tuple[int, int], str] = {}
    for me, (_, pairs) in enumerate(nodes):
        for other in set(range(len(nodes))) - {me}:
            value = pairs.get(other, "no answer")
            if isinstance(value, str):
                bad[min(me, other), max(me, other)] = value
            elif value > slow:
                bad.setdefault(
                    (min(me, other), max(me, other)),
                    f"an all-reduce takes {value:.3f} s, usually {slow / SLOW_PAIR:.3f}",
                )
    counts = Counter(node for pair in bad for node in pair)
    told = set[int]()
    for (first, second), what in sorted(bad.items(), key=lambda item: -max(counts[node] for node in item[0])):
        if counts[first] == counts[second]:
            yield f"{nodes[first][0]} and {nodes[second][0]}: {what}"
            continue
        fault = first if counts[first] > counts[second] else second
        if fault not in told:
            told.add(fault)
            yield f"{nodes[fault][0]} is at fault in {counts[fault]} of its {len(nodes) - 1} connections: {what}"


def _await(path: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while path.name not in os.listdir(path.parent) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
