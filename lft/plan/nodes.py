"""A plan of several nodes without a scheduler: each node carries out its part, and all meet at an address given by hand."""

import re

from lft.core.errors import SettingsError
from lft.plan.launch_plan import LaunchPlan

LAST_PORT = 65535


def on_node(plan: LaunchPlan, node: int | None, meeting_point: str | None) -> LaunchPlan:
    """The plan as one node carries it out, without a scheduler: rank 0 listens at `meeting_point` (host:port).

    Other nodes than the first keep their files in a folder of their own, since whether they share one is not known.
    Raises SettingsError where the nodes could not find each other.
    """
    nodes = plan.topology.nodes
    if nodes == 1 and node is None and meeting_point is None:
        return plan
    mistakes = _meeting_mistakes(plan, node, meeting_point)
    if mistakes:
        example = f"lft launch ... --nodes {max(nodes, 2)} --rdzv HOST-OF-NODE-0:29500 --node-rank 0   (1 on the next)"
        raise SettingsError(mistakes, next_step=f"on each node: {example}")
    assert node is not None
    settings = plan.settings
    if node > 0:
        settings = settings.model_copy(update={"output_dir": settings.output_dir / f"node-{node}"})
    return plan.model_copy(update={"node": node, "meeting_point": meeting_point, "settings": settings})


def _meeting_mistakes(plan: LaunchPlan, node: int | None, meeting_point: str | None) -> list[str]:
    nodes = plan.topology.nodes
    mistakes = []
    if nodes == 1:
        mistakes.append("--rdzv, --node-rank  are for several nodes, and --nodes is 1")
    address = re.fullmatch(r"[^\s:]+:(\d{1,9})", meeting_point or "")
    if not address and nodes > 1:
        mistakes.append(f"--rdzv  is {meeting_point}; HOST:PORT of node 0 is expected, so that {nodes} nodes meet")
    elif address and not 1 <= int(address[1]) <= LAST_PORT:
        mistakes.append(f"--rdzv  is {meeting_point}; a port from 1 to {LAST_PORT} is expected")
    if nodes > 1 and (node is None or not 0 <= node < nodes):
        mistakes.append(f"--node-rank  is {node}; 0 to {nodes - 1} is expected, another one on each node")
    if plan.settings.launch.restarts and nodes > 1:
        mistakes.append("launch.restarts  needs a scheduler that starts all nodes again; leave it out with --rdzv")
    return mistakes
