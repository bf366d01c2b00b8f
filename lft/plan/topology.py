"""How many ranks, on which devices, with how many threads each."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from lft.core.errors import PreflightError, SettingsError
from lft.core.hardware import Machine
from lft.core.settings import LaunchSettings, Strategy
from lft.core.words import counted

ONE_RANK: tuple[Strategy, ...] = ("single", "device-map")
"""Strategies of one rank, whatever is asked for; with device-map it computes on all GPUs asked for."""

MOST_AUTOMATIC_CPU_RANKS = 2
"""Two ranks of one thread are within 10 % of one rank of two, and each rank holds the whole model."""


class Topology(BaseModel):
    """Ranks of all nodes, which are alike; local rank i computes on GPU i of `gpus`, a rank alone on all of them."""

    model_config = ConfigDict(frozen=True)

    device: Literal["cpu", "cuda"]
    nodes: int = 1
    first_node: str = ""
    """The name of the first of several nodes, where it is known."""
    ranks_per_node: int
    asked_ranks: int
    """What the user asked for, over all nodes, which the default global batch is made from."""
    gpus: tuple[str, ...] = ()
    """CUDA_VISIBLE_DEVICES of the ranks of a node."""
    threads_per_rank: int
    reason: str
    notices: tuple[str, ...] = ()

    @property
    def ranks(self) -> int:
        """The world size."""
        return self.nodes * self.ranks_per_node


def choose_topology(launch: LaunchSettings, machine: Machine) -> Topology:
    """GPUs where there are any and they are wanted, else CPU ranks; `machine` stands for each of launch.nodes.

    Fewer GPUs than asked for make a smaller run, and a notice; with launch.strict, a PreflightError. launch.strict auto
    is strict inside a SLURM job, which was given its GPUs on request. Raises SettingsError for several nodes of one rank.
    """
    if launch.nodes > 1 and launch.strategy in ONE_RANK:
        mistake = f"launch.strategy {launch.strategy} is one rank, and launch.nodes is {launch.nodes}"
        raise SettingsError([mistake], source="the plan", next_step="leave out --strategy, or use --nodes 1")
    wanted = len(machine.gpus) if launch.gpus == "auto" else launch.gpus
    if launch.gpus == "auto" and launch.cpu_procs != "auto":
        wanted = 0
    strict = machine.slurm is not None if launch.strict == "auto" else launch.strict
    if strict and wanted > len(machine.gpus):
        raise _too_few_gpus(launch, machine, wanted)
    if wanted and machine.gpus:
        return _on_gpus(launch, machine, wanted)
    return _on_cpu(launch, machine, wanted)


def _too_few_gpus(launch: LaunchSettings, machine: Machine, wanted: int) -> PreflightError:
    here = len(machine.gpus)
    message = f"{wanted} GPUs are asked for and {here} can be used here"
    if launch.strict == "auto" and machine.slurm is not None:
        job = f"SLURM job {machine.slurm.job_id}"
        return PreflightError(
            f"{message}; inside a job ({job}) that is an error, since a smaller run would waste its time",
            next_step=f"ask SLURM for --gpus-per-node={wanted}, or use --gpus {here}, or --no-strict to run on what is there",
        )
    return PreflightError(message, next_step=f"--gpus {here}, or leave out --strict to run on what is there")


def _on_gpus(launch: LaunchSettings, machine: Machine, wanted: int) -> Topology:
    used = 1 if launch.strategy == "single" else min(wanted, len(machine.gpus))
    ranks = 1 if launch.strategy in ONE_RANK else used
    notices: tuple[str, ...] = ()
    if wanted > len(machine.gpus):
        running = counted(ranks * launch.nodes, "rank") + (f" on {counted(used, 'GPU')}" if used > ranks else "")
        asked = f"{counted(wanted, 'GPU')} {'a node ' if launch.nodes > 1 else ''}asked for"
        notices = (f"{asked}, {len(machine.gpus)} here: running {running}{_on_nodes(launch)}",)
    return Topology(
        device="cuda",
        nodes=launch.nodes,
        first_node=_first_node(launch, machine),
        ranks_per_node=ranks,
        asked_ranks=1 if launch.strategy in ONE_RANK else wanted * launch.nodes,
        gpus=tuple(gpu.token for gpu in machine.gpus[:used]),
        threads_per_rank=max(1, machine.cpu_cores // ranks),
        reason="all visible GPUs" if launch.gpus == "auto" else "asked for",
        notices=notices,
    )


def _on_cpu(launch: LaunchSettings, machine: Machine, wanted: int) -> Topology:
    if launch.strategy in ONE_RANK:
        ranks, reason = 1, f"strategy {launch.strategy}"
    elif launch.cpu_procs != "auto":
        ranks, reason = launch.cpu_procs, "asked for"
    else:
        ranks = min(MOST_AUTOMATIC_CPU_RANKS, machine.cpu_cores)
        reason = "one rank a core, at most two, since each holds the whole model; --cpu-procs changes it"
    notices: tuple[str, ...] = ()
    if wanted:
        here = counted(ranks * launch.nodes, "rank")
        there = counted(wanted, "GPU") + (" a node" if launch.nodes > 1 else "")
        none = "CUDA_VISIBLE_DEVICES hides every GPU" if machine.hides_gpus else "no GPU on this machine"
        notices = (f"{none}: running {here} on the CPU{_on_nodes(launch)} instead of the {there} asked for",)
    return Topology(
        device="cpu",
        nodes=launch.nodes,
        first_node=_first_node(launch, machine),
        ranks_per_node=ranks,
        asked_ranks=1 if launch.strategy in ONE_RANK else (wanted or ranks) * launch.nodes,
        threads_per_rank=max(1, machine.cpu_cores // ranks),
        reason=reason,
        notices=notices,
    )


def _on_nodes(launch: LaunchSettings) -> str:
    return f" on {launch.nodes:,} nodes" if launch.nodes > 1 else ""


def _first_node(launch: LaunchSettings, machine: Machine) -> str:
    return machine.slurm.first_node if machine.slurm and launch.nodes > 1 else ""
