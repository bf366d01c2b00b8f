"""The facts of a machine, as they are gathered: plain values, so that judging them needs no hardware."""

from pydantic import BaseModel, ConfigDict

from lft.core.hardware import Machine


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True)


class TorchFacts(_Facts):
    """What torch says of itself and of this machine, asked in a process of its own (lft/train/probe.py)."""

    version: str = ""
    """Nothing where it is not installed, or cannot be imported."""
    error: str = ""
    """Why it cannot be imported, or what it said when it was asked for its GPUs."""
    cuda: str = ""
    """The CUDA version it is built for."""
    hip: str = ""
    """The same for AMD GPUs."""
    gpus: tuple[str, ...] = ()
    """The names of those it sees."""
    capabilities: tuple[tuple[int, int], ...] = ()
    architectures: tuple[str, ...] = ()
    """What its kernels are compiled for: sm_80, compute_90, ..."""
    broken: tuple[str, ...] = ()
    """One line for each GPU that does not add two numbers."""
    nccl: str = ""
    flash_attention_error: str = ""
    """Why an installed flash-attn cannot be imported."""
    import_seconds: float = 0.0


class Card(_Facts):
    """An NVIDIA GPU as nvidia-smi shows it, whatever CUDA_VISIBLE_DEVICES says."""

    index: str
    name: str
    memory_bytes: int
    used_bytes: int
    compute_mode: str = "Default"


class DriverFacts(_Facts):
    """The NVIDIA driver."""

    version: str = ""
    """Nothing where there is none."""
    cuda: str = ""
    """The newest CUDA version it runs."""
    error: str = ""
    """What nvidia-smi complains of, where it is there and fails."""
    cards: tuple[Card, ...] = ()


class FolderFacts(_Facts):
    """A folder that runs write to, looked at in a process of its own, which a dead network share may hold up for ever."""

    use: str
    path: str
    file_system: str = ""
    """As the kernel names it: ext4, nfs4, lustre, ..."""
    mount: str = ""
    free_bytes: int = 0
    free_files: int | None = None
    """How many more files there may be; None where the file system has no limit."""
    error: str = ""
    """Why nothing can be written there, or that it does not answer."""
    locks: bool = True
    """Whether a lock that is held keeps others out."""
    renames: bool = True
    """Whether a file can be put in the place of another."""


class HubFacts(_Facts):
    """The Hugging Face Hub, as its client reaches it."""

    endpoint: str = ""
    offline: str = ""
    """Why it was not asked."""
    has_token: bool = False
    user: str = ""
    error: str = ""
    refused: bool = False
    """Whether the Hub answered that the token is not valid."""


class SlurmFacts(_Facts):
    """SLURM's programs on this machine."""

    version: str = ""
    controller: str = ""
    """What scontrol ping says."""
    is_up: bool = False


class ToolFacts(_Facts):
    """What extensions are compiled with."""

    compiler: str = ""
    ninja: str = ""
    """Where it is found on the PATH."""
    ninja_of_environment: str = ""
    """Where the Python environment has one."""
    nvcc: str = ""
    """Its CUDA version."""


class LimitFacts(_Facts):
    """Limits of this process and its system; None stands for unlimited."""

    open_files: int | None = None
    most_open_files: int | None = None
    locked_bytes: int | None = None
    address_bytes: int | None = None
    has_infiniband: bool = False
    shared_memory_bytes: int | None = None
    """The size of /dev/shm; None where there is no such file system."""
    available_bytes: int = 0
    """Memory that can be had now, below the cgroup's limit."""
    physical_bytes: int = 0
    all_cores: int = 0
    """Of the machine, whether this process may use them or not."""


class PackageFacts(_Facts):
    """Installed distributions."""

    installed: dict[str, str] = {}
    """By normalized name: the version."""
    required: tuple[str, ...] = ()
    """What lft itself requires; nothing where it runs from a clone that is not installed."""
    broken: tuple[str, ...] = ()
    """Requirements of lft's libraries on each other that are not met."""


class Facts(_Facts):
    """All there is to judge."""

    python: str
    executable: str
    in_environment: bool
    """Whether Python runs in a virtual or conda environment."""
    machine: Machine
    cpu_flags: frozenset[str] = frozenset()
    packages: PackageFacts
    torch: TorchFacts
    driver: DriverFacts
    folders: tuple[FolderFacts, ...] = ()
    hub: HubFacts
    slurm: SlurmFacts
    tools: ToolFacts
    limits: LimitFacts
    variables: dict[str, str] = {}
    """Environment variables that are judged, as far as they are set."""
    interfaces: tuple[str, ...] = ()
    """Network interfaces."""
