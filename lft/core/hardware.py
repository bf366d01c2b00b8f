"""What this machine has, found without torch: GPUs, cores and memory this process may really use, and SLURM's word."""

import os
import platform
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lft.core.allocation import SlurmAllocation, slurm_allocation
from lft.core.cgroup import cpu_limit, memory_limit
from lft.core.gpus import Gpu, find_gpus
from lft.core.rank import slurm_variables, visible_gpus
from lft.core.trackers import Tracker, missing_trackers

__all__ = ["Gpu", "Machine", "cpu_computes_bf16", "look_at_machine"]

BF16_CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # x86 and, last, arm64


class Machine(BaseModel):
    """The facts a plan is made from."""

    model_config = ConfigDict(frozen=True)

    gpus: tuple[Gpu, ...]
    cpu_cores: int
    memory_bytes: int
    cpu_computes_bf16: bool
    visible_gpus: tuple[str, ...] | None = None
    """The tokens of CUDA_VISIBLE_DEVICES; None where it is not set."""
    unused_gpu: str = ""
    """A GPU that is there and that lft does not train on: an Apple one, whose memory is the machine's."""
    has_deepspeed: bool = False
    has_bitsandbytes: bool = False
    has_liger: bool = False
    missing_trackers: tuple[Tracker, ...] = ()
    """Those of training.trackers whose package is not installed."""
    slurm: SlurmAllocation | None = None

    def describe(self) -> str:
        """One line for people."""
        memory = f"{self.memory_bytes / 2**30:.0f} GiB"
        cores = "1 CPU core" if self.cpu_cores == 1 else f"{self.cpu_cores} CPU cores"
        if not self.gpus:
            unused = f" that lft trains on (not {self.unused_gpu})" if self.unused_gpu else ""
            unused = " visible" if self.hides_gpus else unused
            return f"no GPU{unused}, {cores}, {memory}"
        names = sorted({gpu.name for gpu in self.gpus})
        return f"{len(self.gpus)} x {' / '.join(names)}, {cores}, {memory}"

    @property
    def hides_gpus(self) -> bool:
        """Whether its user lets no GPU be seen, whatever there is."""
        return self.visible_gpus == ()

    def limits(self) -> str:
        """What narrows the machine, as its user set it: CUDA_VISIBLE_DEVICES, a SLURM job."""
        told = [] if self.visible_gpus is None else [f"CUDA_VISIBLE_DEVICES={','.join(self.visible_gpus)}"]
        told = ["CUDA_VISIBLE_DEVICES hides every GPU"] if self.hides_gpus else told
        return "; ".join(told + ([self.slurm.describe()] if self.slurm else []))


def look_at_machine(root: Path = Path("/")) -> Machine:
    """Ask the system, below `root`; takes a few milliseconds without a GPU and up to a second with some."""
    return Machine(
        gpus=find_gpus(root),
        cpu_cores=cpu_cores(root),
        memory_bytes=_memory_bytes(root),
        cpu_computes_bf16=cpu_computes_bf16(cpu_flags(root)),
        visible_gpus=visible_gpus(),
        unused_gpu=_apple_gpu(),
        has_deepspeed=find_spec("deepspeed") is not None,
        has_bitsandbytes=find_spec("bitsandbytes") is not None,
        has_liger=find_spec("liger_kernel") is not None,
        missing_trackers=missing_trackers(),
        slurm=slurm_allocation(slurm_variables()),
    )


def out_of_memory_kills() -> int:
    """How many processes the kernel has killed for memory since it started, in any cgroup; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def cpu_computes_bf16(flags: frozenset[str]) -> bool:
    """Whether the CPU multiplies bf16 natively; elsewhere it is emulated and slower than float32."""
    return not flags.isdisjoint(BF16_CPU_FLAGS)


def cpu_flags(root: Path = Path("/")) -> frozenset[str]:
    """The flags of the first core; the kernel takes milliseconds to write down many cores, so no more is read."""
    try:
        with (root / "proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    except OSError:
        return frozenset()
    return frozenset(flags.partition(":")[2].split())


def cpu_cores(root: Path = Path("/")) -> int:
    """Cores in this process's affinity mask, or fewer where a cgroup caps CPU time, or where SLURM gave the job fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit, job = cpu_limit(root), slurm_allocation(slurm_variables())
    cores = cores if limit is None else min(cores, max(1, int(limit)))
    return min(cores, job.cpus_on_node) if job and job.cpus_on_node else cores


def _memory_bytes(root: Path) -> int:
    """Physical memory, or less where a cgroup caps it."""
    if platform.system() == "Windows":
        return 0
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = memory_limit(root)
    return physical if limit is None else min(physical, limit)


def _apple_gpu() -> str:
    """`the GPU of the Apple M2` and the like, else nothing. Not run on such a machine."""
    program = shutil.which("sysctl") if platform.system() == "Darwin" and platform.machine() == "arm64" else None
    if program is None:
        return ""
    asked = [program, "-n", "machdep.cpu.brand_string"]
    answer = subprocess.run(asked, capture_output=True, text=True, timeout=5, check=False)
    return f"the GPU of the {answer.stdout.strip() or 'Apple chip'}"
