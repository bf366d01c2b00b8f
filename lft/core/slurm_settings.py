"""The settings of a run that only a SLURM site needs."""

from typing import Annotated, Literal

from pydantic import Field

from lft.core.section import Count, Section

Word = Annotated[str, Field(pattern=r"""^[^\s"'`\\$#]+$""")]
"""A value that stands in an #SBATCH line as it is: sbatch expands nothing there, and ends a value at white space."""


class SlurmSettings(Section):
    """What a site's SLURM wants to know, for lft submit. Kept with the run; local runs do not use it."""

    partition: Word | None = None
    """Partition to submit to."""

    account: Word | None = None
    """Account to charge."""

    qos: Word | None = None
    """Quality of service."""

    constraint: Word | None = None
    """Features the nodes must have, for example a100."""

    exclude: Word | None = None
    """Nodes to stay away from, for example gpu-a[2-3]."""

    reservation: Word | None = None
    """Reservation to run in."""

    time: Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d+){0,2}$")] | None = None
    """Time limit as sbatch reads it, for example 04:00:00."""

    cpus_per_task: Count | None = None
    """CPU cores per node; by default 4 for each GPU, or one for each CPU rank."""

    mem: Annotated[str, Field(pattern=r"^\d+[KMGT]?$")] | None = None
    """Memory per node, for example 200G; 0 is all of it."""

    requeue: bool = True
    """Continue a job that was preempted or reached its time limit."""

    modules: tuple[Word, ...] = ()
    """Modules to load first."""

    setup: tuple[str, ...] = ()
    """Lines to run on the first node before the job, for example `source /opt/site.sh`; what they export reaches all nodes."""

    python: str | None = None
    """Python of the nodes that has lft; by default the one that submits, in a container python3."""

    container: str | None = None
    """Container image to run in."""

    container_runtime: Literal["apptainer", "pyxis"] = "apptainer"
    """What runs the container."""

    container_mounts: tuple[Word, ...] = ()
    """Folders the container sees, as source:target; besides the run's own."""

    directives: tuple[Annotated[str, Field(pattern=r"^--[a-z][a-z-]*(=[^\n\r]+)?$")], ...] = ()
    """Other options of sbatch, for example --mail-type=END."""
