"""The facts of this machine, gathered side by side: what takes long, or may hang, in processes with a deadline."""

import os
import re
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from lft.core.cgroup import memory_left
from lft.core.hardware import cpu_flags, look_at_machine
from lft.core.rank import cache_folder, hub_cache_folder, public_variables
from lft.doctor.ask import ask, ask_module
from lft.doctor.environment import is_judged
from lft.doctor.facts import (
    Card,
    DriverFacts,
    Facts,
    FolderFacts,
    HubFacts,
    LimitFacts,
    PackageFacts,
    SlurmFacts,
    ToolFacts,
    TorchFacts,
)
from lft.doctor.packages import broken_requirements, normalized

TORCH_SECONDS = 60
"""Importing torch takes about 2 s from a local disk, and a minute from a slow share."""
HUB_SECONDS = 6
FOLDER_SECONDS = 5
PROGRAM_SECONDS = 10
CARD_FIELDS = "index,name,memory.total,memory.used,compute_mode,driver_version"

Result = TypeVar("Result")


def gather(output_dir: Path, *, offline: bool) -> Facts:
    """All facts; takes as long as the slowest of them, which is torch."""
    folders = {
        "output": output_dir,
        "cache": cache_folder(),
        "Hub's cache": hub_cache_folder(),
        "temporary files": Path(tempfile.gettempdir()),
    }
    with ThreadPoolExecutor(max_workers=16) as pool:
        torch = pool.submit(_torch)
        hub = pool.submit(_hub, offline)
        driver = pool.submit(_driver)
        slurm = pool.submit(_slurm)
        tools = pool.submit(_tools)
        seen = [pool.submit(_folder, use, path) for use, path in folders.items()]
        machine = look_at_machine()
        return Facts(
            python=".".join(map(str, sys.version_info[:3])),
            executable=sys.executable,
            in_environment=sys.prefix != sys.base_prefix or (Path(sys.prefix) / "conda-meta").is_dir(),
            machine=machine,
            cpu_flags=cpu_flags(),
            packages=_packages(),
            limits=_limits(),
            variables={name: value for name, value in public_variables().items() if is_judged(name)},
            interfaces=tuple(name for _, name in socket.if_nameindex()),
            torch=torch.result(),
            driver=driver.result(),
            folders=tuple(each.result() for each in seen),
            hub=hub.result(),
            slurm=slurm.result(),
            tools=tools.result(),
        )


def _torch() -> TorchFacts:
    return TorchFacts.model_validate(ask_module("lft.train.probe", seconds=TORCH_SECONDS))


def _hub(offline: bool) -> HubFacts:
    if offline:
        return HubFacts(offline="--offline")
    return HubFacts.model_validate(ask_module("lft.doctor.hub_probe", seconds=HUB_SECONDS))


def _folder(use: str, path: Path) -> FolderFacts:
    found = ask_module("lft.doctor.folder_probe", str(path), seconds=FOLDER_SECONDS)
    return FolderFacts.model_validate({"use": use, "path": str(path)} | found)


def _driver() -> DriverFacts:
    """By nvidia-smi: its table, and the CUDA version in the head of its plain output."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return DriverFacts()
    table = ask([program, f"--query-gpu={CARD_FIELDS}", "--format=csv,noheader,nounits"], PROGRAM_SECONDS)
    return parse_driver(table.output, "" if table.error else ask([program], PROGRAM_SECONDS).output, table.error)


def parse_driver(table: str, head: str, error: str = "") -> DriverFacts:
    """Out of what nvidia-smi prints."""
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines() if line.count(",") == 5]
    if error or not rows:
        return DriverFacts(error=error or "it names no GPU")
    cuda = re.search(r"CUDA(?: UMD)? Version: *([\d.]+)", head)
    cards = tuple(
        Card(
            index=row[0],
            name=row[1],
            memory_bytes=_mebibytes(row[2]),
            used_bytes=_mebibytes(row[3]),
            compute_mode=row[4],
        )
        for row in rows
    )
    return DriverFacts(version=rows[0][5], cuda=cuda[1] if cuda else "", cards=cards)


def _mebibytes(text: str) -> int:
    return int(float(text) * 2**20) if text.replace(".", "", 1).isdigit() else 0


def _slurm() -> SlurmFacts:
    if shutil.which("sinfo") is None:
        return SlurmFacts()
    version = ask(["sinfo", "--version"], PROGRAM_SECONDS)
    ping = ask(["scontrol", "ping"], PROGRAM_SECONDS)
    said = (ping.output.strip().splitlines() or [ping.error])[0]
    return SlurmFacts(
        version=version.output.removeprefix("slurm").strip() or "of unknown version",
        controller=said,
        is_up=said.endswith("UP"),
    )


def _tools() -> ToolFacts:
    """The first lines of what the compilers print, asked side by side."""
    nvcc = shutil.which("nvcc")
    compiler = shutil.which(public_variables().get("CXX", "c++")) or shutil.which("g++")
    own_ninja = Path(sys.prefix) / "bin" / "ninja"
    release = re.search(r"release ([\d.]+)", ask([nvcc, "--version"], PROGRAM_SECONDS).output) if nvcc else None
    return ToolFacts(
        compiler=ask([compiler, "--version"], PROGRAM_SECONDS).output.partition("\n")[0] if compiler else "",
        ninja=shutil.which("ninja") or "",
        ninja_of_environment=str(own_ninja) if own_ninja.exists() else "",
        nvcc=release[1] if release else "",
    )


def _packages() -> PackageFacts:
    found = {normalized(each.metadata["Name"]): each for each in metadata.distributions() if each.metadata["Name"]}
    installed = {name: each.version for name, each in found.items()}
    requires = {name: each.requires or [] for name, each in found.items()}
    return PackageFacts(
        installed=installed,
        required=tuple(requires.get("lft", ())),
        broken=tuple(broken_requirements(installed, requires)),
    )


def _limits() -> LimitFacts:
    shared, soft_and_hard = Path("/dev/shm"), resource.getrlimit(resource.RLIMIT_NOFILE)
    physical, available = _memory()
    return LimitFacts(
        open_files=_limit(soft_and_hard[0]),
        most_open_files=_limit(soft_and_hard[1]),
        locked_bytes=_limit(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]),
        address_bytes=_limit(resource.getrlimit(resource.RLIMIT_AS)[0]),
        has_infiniband=_has_entries(Path("/sys/class/infiniband")),
        shared_memory_bytes=_or_none(lambda: shutil.disk_usage(shared).total),
        available_bytes=available,
        physical_bytes=physical,
        all_cores=os.cpu_count() or 0,
    )


def _limit(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def _memory() -> tuple[int, int]:
    """Physical memory, and what of it can be had: the kernel's estimate, or less below a cgroup's limit."""
    import psutil  # the only one who needs it here, and it may be missing

    memory, left = psutil.virtual_memory(), memory_left()
    return int(memory.total), int(memory.available if left is None else min(memory.available, left))


def _has_entries(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _or_none(value: Callable[[], Result]) -> Result | None:
    try:
        return value()
    except OSError:
        return None
