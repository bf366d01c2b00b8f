"""Who a process is among the ranks, which GPUs it may use, and what the machine is found to have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lft.core.hardware import Machine, cpu_computes_bf16, look_at_machine
from lft.core.rank import Rank, cache_folder, clean_environment, given_rendezvous, use_defaults, visible_gpus


@pytest.mark.parametrize("rank", [Rank(), Rank(rank=5, local_rank=1, world_size=8, local_world_size=4)])
def test_a_rank_knows_itself_again_from_its_environment(rank: Rank) -> None:
    assert Rank.from_environment(rank.to_environment()) == rank


@pytest.mark.parametrize(
    ("environment", "expected", "is_main"),
    [
        ({}, Rank(), True),
        (
            {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_SIZE": "4"},
            Rank(rank=5, local_rank=1, world_size=8, local_world_size=4),
            False,
        ),
        ({"RANK": "1", "WORLD_SIZE": "2"}, Rank(rank=1, local_rank=1, world_size=2, local_world_size=2), False),
    ],
)
def test_what_a_launcher_leaves_out_is_filled_in(environment: dict[str, str], expected: Rank, is_main: bool) -> None:
    rank = Rank.from_environment(environment)
    assert (rank, rank.is_main) == (expected, is_main)


def test_ranks_inherit_nothing_of_a_launcher_around_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "GROUP_RANK"),
        *(
            "ACCELERATE_MIXED_PRECISION",
            "FSDP_VERSION",
            "TORCHELASTIC_RUN_ID",
            "ROLE_RANK",
            "PARALLELISM_CONFIG_TP_SIZE",
        ),
    ):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("HF_HOME", "kept")
    monkeypatch.setenv("RANKING", "kept")
    assert given_rendezvous()
    cleaned = clean_environment()
    assert {name for name, value in cleaned.items() if value == "7"} == set()
    assert (cleaned["HF_HOME"], cleaned["RANKING"], cleaned["PATH"]) == ("kept", "kept", os.environ["PATH"])


def test_a_given_rendezvous_only_with_address_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_PORT", raising=False)
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert not given_rendezvous()


def test_a_default_never_replaces_what_the_user_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LFT_TEST_SET", "user")
    monkeypatch.setenv("LFT_TEST_UNSET", "")
    monkeypatch.delenv("LFT_TEST_UNSET")
    use_defaults({"LFT_TEST_SET": "default", "LFT_TEST_UNSET": "default"})
    assert (os.environ["LFT_TEST_SET"], os.environ["LFT_TEST_UNSET"]) == ("user", "default")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LFT_CACHE": "~/mine", "XDG_CACHE_HOME": "/other"}, "HOME/mine"),
        ({"XDG_CACHE_HOME": "/other"}, "/other/lft"),
        ({"XDG_CACHE_HOME": ""}, "HOME/.cache/lft"),
        ({}, "HOME/.cache/lft"),
    ],
)
def test_the_cache_is_where_the_user_says_or_where_caches_are(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("LFT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"HOME": str(tmp_path)} | variables).items():
        monkeypatch.setenv(name, value)
    assert str(cache_folder()) == expected.replace("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("0,1", ("0", "1")),
        (" 3 , 1 ", ("3", "1")),
        ("0,-1,1", ("0",)),
        ("0,,1", ("0",)),
        ("0,1,0", ()),
        ("GPU-11aa,GPU-11aa", ()),
        ("GPU-11aa22bb,MIG-GPU-1/2/3", ("GPU-11aa22bb", "MIG-GPU-1/2/3")),
    ],
)
def test_the_visible_gpus_are_those_cuda_would_take(
    value: str | None, expected: tuple[str, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity mask")
def test_only_the_cores_this_process_may_use_are_counted() -> None:
    script = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    script += "from lft.core.hardware import look_at_machine; print(look_at_machine().cpu_cores)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout == b"1\n"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2 avx512f", False), ("avx512_bf16", True), ("fpu amx_bf16", True), ("asimd bf16", True), ("", False)],
)
def test_a_cpu_that_multiplies_bf16_is_known_by_its_flags(flags: str, expected: bool) -> None:
    assert cpu_computes_bf16(frozenset(flags.split())) is expected


def test_the_limits_of_a_container_and_the_job_around_it_are_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "sys/fs/cgroup/job"
    own.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/job\n")
    (tmp_path / "proc/cpuinfo").write_text("processor : 0\nflags : fpu avx512_bf16\nprocessor : 1\nflags : fpu\n")
    (own / "cpu.max").write_text("100000 100000\n")
    (own / "memory.max").write_text("1073741824\n")
    monkeypatch.setenv("SLURM_JOB_ID", "48213")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "gpu-a2")
    machine = look_at_machine(tmp_path)
    assert (machine.cpu_cores, machine.memory_bytes, machine.cpu_computes_bf16) == (1, 2**30, True)
    assert machine.limits() == "CUDA_VISIBLE_DEVICES hides every GPU; SLURM job 48213, in its batch shell, on gpu-a2"
    assert machine.has_deepspeed


def test_an_apple_gpu_is_named_and_left_alone() -> None:
    mac = Machine(
        gpus=(), cpu_cores=8, memory_bytes=16 * 2**30, cpu_computes_bf16=False, unused_gpu="the GPU of the Apple M2"
    )
    assert mac.describe() == "no GPU that lft trains on (not the GPU of the Apple M2), 8 CPU cores, 16 GiB"
