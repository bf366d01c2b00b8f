"""What the cgroups around this process let it use. The tightest limit counts, its own or that of any cgroup above."""

import re
from collections.abc import Iterator
from pathlib import Path

CONTROLLERS = "sys/fs/cgroup"


def cpu_limit(root: Path = Path("/")) -> float | None:
    """Cores' worth of CPU time (cpu.max; version 1: cfs_quota_us / cfs_period_us), or None where nothing limits it."""
    limits: list[float] = []
    for folder in _folders("cpu", root):
        words = _text(folder / "cpu.max").split()
        words = words or [_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():
            limits.append(int(words[0]) / int(words[1]))
    return min(limits, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes (memory.max; version 1: memory.limit_in_bytes, 2^63 where there is none), or None."""
    texts = (
        _text(folder / name) for folder in _folders("memory", root) for name in ("memory.max", "memory.limit_in_bytes")
    )
    return min((int(text) for text in texts if text.isdigit()), default=None)


def memory_left(root: Path = Path("/")) -> int | None:
    """Bytes that can still be had before a limit is met, files that are only cached counted as free; None without a limit."""
    left: list[int] = []
    for folder in _folders("memory", root):
        limit = _text(folder / "memory.max") or _text(folder / "memory.limit_in_bytes")
        used = _text(folder / "memory.current") or _text(folder / "memory.usage_in_bytes")
        if limit.isdigit() and used.isdigit():
            cached = re.search(r"^(?:total_)?inactive_file (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
            left.append(int(limit) - int(used) + (int(cached[1]) if cached else 0))
    return min(left, default=None)


def _folders(controller: str, root: Path) -> Iterator[Path]:
    """Folders of this process's cgroup and all above it, of version 2 (`0::/a/b`) and of version 1 (`4:cpu,cpuacct:/a/b`).

    In a container the path may be the host's, which does not exist there: the top folder is then the container's own.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, own = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / CONTROLLERS / controller if controllers else root / CONTROLLERS
        path = Path(own.lstrip("/"))
        yield from (top / inner for inner in (path, *path.parents) if ".." not in inner.parts)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
