"""What SLURM gave this process, from its environment.

The batch shell has NODEID, PROCID and LOCALID 0 and looks like a rank; only the variables of a step tell a step.
"""

import re
from collections.abc import Mapping
from itertools import product

from pydantic import BaseModel, ConfigDict

SPECIAL_STEPS = 0xFFFFFFF0
"""Step ids from here on are batch shells, interactive shells and the like, not srun's tasks."""


class SlurmAllocation(BaseModel):
    """A SLURM job as one of its processes sees it."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    node_list: str
    """As SLURM writes it, for example `gpu-a[2-3]`: of the step where there is one, else of the job."""
    nodes: int
    in_step: bool
    """Whether srun started this process; else it is the batch shell, or an interactive one, of the first node."""
    tasks: int | None = None
    """Processes of the step; None outside one."""
    node_index: int | None = None
    """Which of the step's nodes this is, counted from 0; None outside a step."""
    cpus_on_node: int | None = None
    gpus_on_node: int | None = None
    step_id: int = 0
    restarts: int = 0
    """How often SLURM has requeued the job; unset in its first life."""
    launch_address: str = ""
    """Where srun runs: an address of the network that the nodes share."""

    @property
    def first_node(self) -> str:
        """The host name of the first node of the list."""
        return next(iter(node_names(self.node_list)), "")

    @property
    def life(self) -> str:
        """This life of the job, for example `48213.0`, then `48213.1`."""
        return f"{self.job_id}.{self.restarts}"

    def describe(self) -> str:
        """For people, without a capital."""
        where = "in a step" if self.in_step else "in its batch shell"
        return f"SLURM job {self.job_id}, {where}, on {self.node_list or 'one node'}"


def slurm_allocation(variables: Mapping[str, str]) -> SlurmAllocation | None:
    """The allocation that variables named SLURM_... tell of, or None outside a job."""
    job_id = variables.get("SLURM_JOB_ID") or variables.get("SLURM_JOBID")
    if not job_id:
        return None
    array, element = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
    if array and element:  # an element's own id may be that of the whole array
        job_id = f"{array}_{element}"
    step = _number(variables, "SLURM_STEP_ID")
    in_step = step is not None and step < SPECIAL_STEPS
    scope = "SLURM_STEP" if in_step else "SLURM_JOB"
    return SlurmAllocation(
        job_id=job_id,
        node_list=variables.get(f"{scope}_NODELIST", ""),
        nodes=_number(variables, f"{scope}_NUM_NODES") or 1,
        in_step=in_step,
        tasks=_number(variables, "SLURM_STEP_NUM_TASKS") if in_step else None,
        node_index=_number(variables, "SLURM_NODEID") if in_step else None,
        cpus_on_node=_number(variables, "SLURM_CPUS_ON_NODE"),
        gpus_on_node=_number(variables, "SLURM_GPUS_ON_NODE"),
        step_id=step if step is not None and in_step else 0,
        restarts=_number(variables, "SLURM_RESTART_COUNT") or 0,
        launch_address=variables.get("SLURM_LAUNCH_NODE_IPADDR", ""),
    )


def node_names(node_list: str) -> list[str]:
    """The host names of a list as SLURM writes it: `rack[1-2]n[1,3]` is rack1n1, rack1n3, rack2n1, rack2n3. Pure."""
    names: list[str] = []
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", node_list):
        pieces = re.split(r"\[([^\]]*)\]", item)
        choices = [[piece] if index % 2 == 0 else _numbers(piece) for index, piece in enumerate(pieces)]
        names += map("".join, product(*choices))
    return names


def _numbers(ranges: str) -> list[str]:
    """`08-10,12` is 08, 09, 10, 12: leading zeros stay."""
    found: list[str] = []
    for each in ranges.split(","):
        first, _, last = each.partition("-")
        numbers = range(int(first), int(last) + 1) if last else ()
        found += [str(number).zfill(len(first)) for number in numbers] or [first]
    return found


def _number(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "")
    return int(text) if text.isdigit() else None
