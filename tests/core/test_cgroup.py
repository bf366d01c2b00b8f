"""What a process may use is the tightest limit of its cgroup and all above it, in both versions."""

from pathlib import Path

import pytest

from lft.core.cgroup import cpu_limit, memory_limit

GIB = 2**30
NONE_V1 = 9223372036854771712


@pytest.mark.parametrize(
    ("own", "files", "cores", "memory"),
    [
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/b/memory.max": "max"}, None, None),
        ("0::/a/b\n", {"a/b/cpu.max": "150000 100000", "a/b/memory.max": f"{GIB}"}, 1.5, GIB),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "400000 100000", "a/memory.max": f"{GIB}"}, 4, GIB),
        (
            "0::/a/b\n",
            {"a/b/memory.max": f"{3 * GIB}", "a/memory.max": f"{2 * GIB}", "memory.max": "max"},
            None,
            2 * GIB,
        ),
        ("0::/\n", {"cpu.max": "200000 100000", "memory.max": f"{GIB}"}, 2, GIB),
        # what a container sees of a path of its host's
        ("0::/../../other\n", {"memory.max": f"{GIB}"}, None, GIB),
        ("4:memory:/docker/x\n1:cpu,cpuacct:/docker/x\n", {"memory/memory.limit_in_bytes": f"{GIB}"}, None, GIB),
        (
            "4:memory:/s/j\n1:cpu,cpuacct:/s/j\n0::/\n",
            {
                "memory/s/j/memory.limit_in_bytes": f"{NONE_V1}",
                "memory/s/memory.limit_in_bytes": f"{GIB}",
                "cpu/s/j/cpu.cfs_quota_us": "-1",
                "cpu/s/j/cpu.cfs_period_us": "100000",
                "cpu/s/cpu.cfs_quota_us": "300000",
                "cpu/s/cpu.cfs_period_us": "100000",
            },
            3,
            GIB,
        ),
        ("4:cpuset:/s\n", {"cpu/s/cpu.max": "1 1", "memory.max": "1"}, None, None),
    ],
)
def test_the_tightest_limit_counts(
    own: str, files: dict[str, str], cores: float | None, memory: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(own)
    assert (cpu_limit(tmp_path), memory_limit(tmp_path)) == (cores, memory)


def test_a_system_without_cgroups_limits_nothing(tmp_path: Path) -> None:
    assert (cpu_limit(tmp_path), memory_limit(tmp_path)) == (None, None)
