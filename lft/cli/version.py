"""What a report of a bug needs to say of versions, found without importing any of the libraries."""

import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import lft

VERSION = lft.__version__
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "deepspeed")
DRIVER = Path("/proc/driver/nvidia/version")
SMI_SECONDS = 2


def version_lines() -> list[str]:
    """lft, Python, system, libraries, driver of NVIDIA GPUs; in some 50 ms."""
    libraries = [f"{name} {_installed(name)}" for name in LIBRARIES]
    return [
        f"lft {VERSION}",
        f"Python {platform.python_version()}   {sys.executable}",
        platform.platform(),
        ", ".join(libraries[:3]),
        ", ".join(libraries[3:]),
        f"NVIDIA driver {nvidia_driver() or 'not found'}",
    ]


def nvidia_driver(path: Path = DRIVER) -> str:
    """By the kernel's module, else (in WSL) by nvidia-smi; nothing where there is none."""
    if path.exists():
        found = re.search(r"Kernel Module(?: for \S+)? +([\d.]+)", path.read_text(encoding="utf-8", errors="replace"))
        return found[1] if found else ""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    question = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(question, capture_output=True, text=True, timeout=SMI_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip().partition("\n")[0] if answer.returncode == 0 else ""


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
