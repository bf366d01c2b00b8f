"""How many ranks, on which devices, with how many threads each."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from lft.core.errors import PreflightError
from lft.core.hardware import Machine
from lft.core.settings import LaunchSettings
from lft.core.words import counted

MOST_AUTOMATIC_CPU_RANKS = 2
"""Two ranks of one thread are within 10 % of one rank of two, and each rank holds the whole model."""


class Topology(BaseModel):
    """Ranks of all nodes, which are alike; local rank i computes on GPU i of `gpus`, if there are any."""

    model_config = ConfigDict(frozen=True)

    device: Literal["cpu", "cuda"]
    nodes: int = 1
    ranks_per_node: int
    asked_ranks: int
    """What the user asked for, which the default global batch is made from."""
    gpus: tuple[str, ...] = ()
    threads_per_rank: int
    reason: str
    notices: tuple[str, ...] = ()

    @property
    def ranks(self) -> int:
        """The world size."""
        return self.nodes * self.ranks_per_node


def choose_topology(launch: LaunchSettings, machine: Machine) -> Topology:
    """GPUs where there are any and they are wanted, else CPU ranks.

    Fewer GPUs than asked for make a smaller run, and a notice; with launch.strict, a PreflightError.
    """
    wanted = len(machine.gpus) if launch.gpus == "auto" else launch.gpus
    if launch.gpus == "auto" and launch.cpu_procs != "auto":
        wanted = 0
    if launch.strict and wanted > len(machine.gpus):
        raise PreflightError(
            f"{wanted} GPUs are asked for and {len(machine.gpus)} can be used here",
            next_step=f"--gpus {len(machine.gpus)}, or leave out --strict to run on what is there",
        )
    if wanted and machine.gpus:
        return _on_gpus(launch, machine, wanted)
    return _on_cpu(launch, machine, wanted)


def _on_gpus(launch: LaunchSettings, machine: Machine, wanted: int) -> Topology:
    used = 1 if launch.strategy == "single" else min(wanted, len(machine.gpus))
    notices: tuple[str, ...] = ()
    if wanted > len(machine.gpus):
        notices = (f"{counted(wanted, 'GPU')} asked for, {len(machine.gpus)} here: running {counted(used, 'rank')}",)
    return Topology(
        device="cuda",
        nodes=launch.nodes,
        ranks_per_node=used,
        asked_ranks=1 if launch.strategy == "single" else wanted * launch.nodes,
        gpus=tuple(gpu.token for gpu in machine.gpus[:used]),
        threads_per_rank=max(1, machine.cpu_cores // used),
        reason="all visible GPUs" if launch.gpus == "auto" else "asked for",
        notices=notices,
    )


def _on_cpu(launch: LaunchSettings, machine: Machine, wanted: int) -> Topology:
    if launch.strategy == "single":
        ranks, reason = 1, "strategy single"
    elif launch.cpu_procs != "auto":
        ranks, reason = launch.cpu_procs, "asked for"
    else:
        ranks = min(MOST_AUTOMATIC_CPU_RANKS, machine.cpu_cores)
        reason = "one rank a core, at most two, since each holds the whole model; --cpu-procs changes it"
    notices: tuple[str, ...] = ()
    if wanted:
        here, there = counted(ranks, "rank"), counted(wanted, "GPU")
        notices = (f"no GPU on this machine: running {here} on the CPU instead of the {there} asked for",)
    return Topology(
        device="cpu",
        nodes=launch.nodes,
        ranks_per_node=ranks,
        asked_ranks=1 if launch.strategy == "single" else (wanted or ranks) * launch.nodes,
        threads_per_rank=max(1, machine.cpu_cores // ranks),
        reason=reason,
        notices=notices,
    )
