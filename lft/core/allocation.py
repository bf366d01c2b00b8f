"""What SLURM gave this process, from its environment.

The batch shell has NODEID, PROCID and LOCALID 0 and looks like a rank; only the variables of a step tell a step.
"""

import re
from collections.abc import Mapping

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

    @property
    def first_node(self) -> str:
        """The host name of the first node of the list."""
        first = re.split(r",(?![^\[]*\])", self.node_list)[0]
        return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", first)

    def describe(self) -> str:
        """For people, without a capital."""
        where = "in a step" if self.in_step else "in its batch shell"
        return f"SLURM job {self.job_id}, {where}, on {self.node_list or 'one node'}"


def slurm_allocation(variables: Mapping[str, str]) -> SlurmAllocation | None:
    """The allocation that variables named SLURM_... tell of, or None outside a job."""
    job_id = variables.get("SLURM_JOB_ID") or variables.get("SLURM_JOBID")
    if not job_id:
        return None
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
    )


def _number(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "")
    return int(text) if text.isdigit() else None
