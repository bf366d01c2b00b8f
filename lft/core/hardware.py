"""What this machine has, found without torch: GPUs through nvidia-smi, cores and memory this process may really use."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lft.core.rank import visible_gpus

NVIDIA_SMI_TIMEOUT_SECONDS = 20
NVIDIA_SMI_FIELDS = "index,uuid,name,memory.total,compute_cap"
BF16_CPU_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # x86 and, last, arm64
BF16_COMPUTE_CAPABILITY = 8.0  # Ampere


class Gpu(BaseModel):
    """One GPU. `token` is its entry in CUDA_VISIBLE_DEVICES, or its index where that is not set."""

    model_config = ConfigDict(frozen=True)

    token: str
    name: str
    memory_bytes: int
    computes_bf16: bool


class Machine(BaseModel):
    """The facts a plan is made from."""

    model_config = ConfigDict(frozen=True)

    gpus: tuple[Gpu, ...]
    cpu_cores: int
    memory_bytes: int
    cpu_computes_bf16: bool

    def describe(self) -> str:
        """One line for people."""
        memory = f"{self.memory_bytes / 2**30:.0f} GiB"
        if not self.gpus:
            return f"no GPU, {self.cpu_cores} CPU cores, {memory}"
        names = sorted({gpu.name for gpu in self.gpus})
        return f"{len(self.gpus)} x {' / '.join(names)}, {self.cpu_cores} CPU cores, {memory}"


def look_at_machine() -> Machine:
    """Ask the system; takes milliseconds without a GPU and up to a second with some."""
    return Machine(
        gpus=_gpus(),
        cpu_cores=_cpu_cores(),
        memory_bytes=_memory_bytes(),
        cpu_computes_bf16=cpu_computes_bf16(_cpu_flags()),
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


def parse_nvidia_smi(text: str, visible: tuple[str, ...] | None) -> tuple[Gpu, ...]:
    """GPUs out of `nvidia-smi --query-gpu=index,uuid,name,memory.total,compute_cap --format=csv,noheader,nounits`.

    `visible` are the tokens of CUDA_VISIBLE_DEVICES: an index, or the start of a UUID. A MIG token cannot be looked up in
    this table; it stands for a device of unknown size, taken from the first line.
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") == 4]
    cards = {
        row[0]: (
            row[1],
            Gpu(
                token=row[0],
                name=row[2],
                memory_bytes=_number(row[3]) * 2**20,
                computes_bf16=float(row[4] if row[4].replace(".", "").isdigit() else 0) >= BF16_COMPUTE_CAPABILITY,
            ),
        )
        for row in rows
    }
    if visible is None:
        return tuple(gpu for _, gpu in cards.values())
    found: list[Gpu] = []
    for token in visible:
        matches = [gpu for index, (uuid, gpu) in cards.items() if token == index or uuid.startswith(token)]
        if token.startswith("MIG") and cards:
            matches = [next(iter(cards.values()))[1]]
        if not matches:
            break  # CUDA ignores everything after a token that names no device
        found.append(matches[0].model_copy(update={"token": token}))
    return tuple(found)


def _number(text: str) -> int:
    return int(float(text)) if text.replace(".", "").isdigit() else 0


def _gpus() -> tuple[Gpu, ...]:
    visible = visible_gpus()
    program = shutil.which("nvidia-smi")
    if program is None or visible == ():
        return ()
    try:
        answer = subprocess.run(
            [program, f"--query-gpu={NVIDIA_SMI_FIELDS}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=NVIDIA_SMI_TIMEOUT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return parse_nvidia_smi(answer.stdout, visible) if answer.returncode == 0 else ()


def _cpu_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    flags = (line for line in lines if line.lower().startswith(("flags", "features")))
    return frozenset(next(flags, "").partition(":")[2].split())


def _cpu_cores() -> int:
    """Cores in this process's affinity mask, or fewer where a cgroup caps CPU time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_text("cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, max(1, int(quota[0]) // int(quota[1])))
    return cores


def _memory_bytes() -> int:
    """Physical memory, or less where a cgroup caps it."""
    if platform.system() == "Windows":
        return 0
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _cgroup_text("memory.max").strip()
    return min(physical, int(limit)) if limit.isdigit() else physical


def _cgroup_text(name: str) -> str:
    """A file of this process's own cgroup (version 2), or nothing."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        own = next(line[3:] for line in lines if line.startswith("0::"))
        return (Path("/sys/fs/cgroup") / own.lstrip("/") / name).read_text(encoding="utf-8")
    except (OSError, StopIteration):
        return ""
