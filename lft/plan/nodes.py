"""The part of one node of several: in a SLURM step, or without a scheduler, where all meet at an address given by hand."""

import re
from collections.abc import Sequence

from lft.core.allocation import SlurmAllocation, node_names
from lft.core.errors import PreflightError, RendezvousError, SettingsError
from lft.core.gpus import Gpu
from lft.core.words import counted
from lft.plan.launch_plan import LaunchPlan

LAST_PORT = 65535


def as_node(plan: LaunchPlan, node: int, gpus: Sequence[Gpu]) -> LaunchPlan:
    """The first node's plan as another node of the same job carries it out, on GPUs that may have other names there.

    Raises PreflightError where it has fewer of them.
    """
    wanted = len(plan.topology.gpus)
    if len(gpus) < wanted:
        raise PreflightError(f"node {node} has {counted(len(gpus), 'GPU')}, and the first one uses {wanted}")
    topology = plan.topology.model_copy(update={"gpus": tuple(gpu.token for gpu in gpus[:wanted])})
    return plan.model_copy(update={"node": node, "topology": topology})


def in_step(plan: LaunchPlan, address: str) -> LaunchPlan:
    """The plan as the first node of a SLURM step carries it out: rank 0 takes a free port of `address`."""
    if plan.topology.nodes == 1:
        return plan
    return plan.model_copy(update={"meeting_point": f"{address}:0", "shares_folder": True})


def refuse_wrong_step(nodes: int, allocation: SlurmAllocation) -> None:
    """One task a node, and the nodes of the plan: raise SettingsError or RendezvousError where the step has others."""
    names = node_names(allocation.node_list)
    if allocation.tasks != allocation.nodes:
        raise SettingsError(
            [
                f"SLURM started {allocation.tasks} tasks on {counted(allocation.nodes, 'node')}; one agent a node is expected"
            ],
            source="the SLURM step",
            next_step=f"srun --nodes={allocation.nodes} --ntasks-per-node=1 lft launch ...",
        )
    if nodes > allocation.nodes:
        raise RendezvousError(
            f"the plan is for {nodes} nodes, and {nodes - allocation.nodes} are missing: this step has {', '.join(names)}",
            next_step=f"srun --nodes={nodes} --ntasks-per-node=1 ..., or --nodes {allocation.nodes}",
        )
    if nodes < allocation.nodes:
        raise SettingsError(
            [f"launch.nodes  is {nodes}, and this step has {allocation.nodes}: {', '.join(names)}"],
            source="the SLURM step",
            next_step=f"--nodes {allocation.nodes}, or srun --nodes={nodes} --ntasks-per-node=1 ...",
        )


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
