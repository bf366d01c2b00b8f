"""What lft doctor says of a machine, judged from facts alone: GPUs, drivers and clashes need not be here."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lft.core.gpus import Gpu
from lft.core.hardware import Machine
from lft.doctor.devices import runs_on
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
from lft.doctor.finding import Finding, Level
from lft.doctor.folder_probe import mount_of
from lft.doctor.gather import parse_driver
from lft.doctor.judge import judge
from lft.doctor.packages import CLASHES, OPTIONAL, broken_requirements, matches
from tests.conftest import REPOSITORY

GIB = 2**30
A100 = Gpu(token="0", name="A100", memory_bytes=40 * GIB, computes_bf16=True)
CARD = Card(index="0", name="A100", memory_bytes=40 * GIB, used_bytes=0)
SM_80 = ((8, 0),)
CUDA_12 = TorchFacts(
    version="2.9.0", cuda="12.8", gpus=("A100",), capabilities=SM_80, architectures=("sm_80", "sm_90"), nccl="2.27.3"
)
OUTPUT = FolderFacts(use="output", path="/data/out", file_system="ext4", mount="/data", free_bytes=100 * GIB)
HUB = {"huggingface-hub": "1.0"}


def facts(**changes: Any) -> Facts:
    """A machine with a GPU on which nothing is wrong, but for `changes`."""
    good = Facts(
        python="3.12.1",
        executable="/env/bin/python",
        in_environment=True,
        machine=Machine(gpus=(A100,), cpu_cores=16, memory_bytes=64 * GIB, cpu_computes_bf16=False),
        packages=PackageFacts(installed=HUB),
        torch=CUDA_12,
        driver=DriverFacts(version="550.54", cuda="12.4", cards=(CARD,)),
        folders=(OUTPUT,),
        hub=HubFacts(endpoint="https://huggingface.co", has_token=True, user="ada"),
        slurm=SlurmFacts(),
        tools=ToolFacts(compiler="g++ 12", ninja="/usr/bin/ninja"),
        limits=LimitFacts(
            open_files=65536, available_bytes=60 * GIB, physical_bytes=64 * GIB, all_cores=16, shared_memory_bytes=GIB
        ),
        interfaces=("lo", "eth0"),
    )
    return good.model_copy(update=changes)


def wrong(findings: Sequence[Finding]) -> list[Finding]:
    """Those that are not ok."""
    return [finding for finding in findings if finding.level != "ok"]


def changed(model: Any, **changes: Any) -> Any:
    """A part of the facts with some of them changed."""
    return model.model_copy(update=changes)


def test_a_good_machine_is_found_good() -> None:
    assert wrong(judge(facts())) == []


NO_GPUS = Machine(gpus=(), cpu_cores=4, memory_bytes=64 * GIB, cpu_computes_bf16=False)
CASES: dict[str, tuple[dict[str, Any], Level, str, str]] = {
    "an untried Python": ({"python": "3.15.0"}, "warn", "tried on 3.11 to 3.13", "python3.13 -m venv"),
    "no torch": (
        {"torch": TorchFacts(error="ModuleNotFoundError: No module named 'torch'")},
        "fail",
        "is not installed",
        "pip install torch",
    ),
    "a torch that cannot be imported": (
        {"torch": TorchFacts(error="ImportError: libcudnn.so.9: cannot open shared object file")},
        "fail",
        "libcudnn.so.9",
        "--force-reinstall torch",
    ),
    "a torch for the CPU beside a GPU": (
        {"torch": TorchFacts(version="2.9.0+cpu")},
        "fail",
        "built for the CPU: none of them is used",
        "CUDA 12.4",
    ),
    "a driver that is older than the build": (
        {"torch": changed(CUDA_12, cuda="13.0")},
        "fail",
        "built for CUDA 13.0, and driver 550.54 runs CUDA 12.4 at most",
        "update the driver",
    ),
    "a driver that is not seen by torch": (
        {"torch": changed(CUDA_12, gpus=(), error="CUDA unknown error")},
        "fail",
        "sees none of 1 GPU: CUDA unknown error",
        "--gpus all",
    ),
    "one of two GPUs that torch does not see": (
        {"machine": Machine(gpus=(A100, A100), cpu_cores=16, memory_bytes=64 * GIB, cpu_computes_bf16=False)},
        "fail",
        "sees 1 of 2 GPUs",
        "nvidia-smi",
    ),
    "a container without nvidia-smi": (
        {
            "machine": Machine(gpus=(), cpu_cores=16, memory_bytes=64 * GIB, cpu_computes_bf16=False),
            "driver": DriverFacts(),
        },
        "fail",
        "torch sees 1 GPU, and nvidia-smi, by which lft finds them, does not work here",
        "NVIDIA_DRIVER_CAPABILITIES",
    ),
    "a torch for the CPU beside an AMD GPU": (
        {"torch": TorchFacts(version="2.9.0+cpu"), "driver": DriverFacts()},
        "fail",
        "1 GPU here, and this torch is built for the CPU",
        "ROCm",
    ),
    "a GPU that is newer than the kernels": (
        {"torch": changed(CUDA_12, gpus=("B200",), capabilities=((10, 0),))},
        "fail",
        "no kernels for B200 (sm_100), only for sm_80, sm_90",
        "a newer CUDA",
    ),
    "a GPU that does not compute": (
        {"torch": changed(CUDA_12, broken=("GPU 0: uncorrectable ECC error",))},
        "fail",
        "does not compute on GPU 0: uncorrectable ECC error",
        "nvidia-smi",
    ),
    "a flash-attn for another torch": (
        {"torch": changed(CUDA_12, flash_attention_error="ImportError: undefined symbol: _ZN3c105")},
        "warn",
        "flash-attn is installed and cannot be imported",
        "uninstall flash-attn",
    ),
    "an environment on a slow share": ({"torch": changed(CUDA_12, import_seconds=40.0)}, "warn", "40.0 s", "local"),
    "a driver that fails": (
        {"driver": DriverFacts(error="Driver/library version mismatch")},
        "fail",
        "nvidia-smi fails: Driver/library version mismatch",
        "restart",
    ),
    "GPUs that are hidden": (
        {"machine": changed(NO_GPUS, visible_gpus=()), "torch": changed(CUDA_12, gpus=())},
        "warn",
        "all hidden by CUDA_VISIBLE_DEVICES",
        "unset CUDA_VISIBLE_DEVICES",
    ),
    "a GPU in use": (
        {"driver": DriverFacts(version="550", cuda="12.8", cards=(changed(CARD, used_bytes=30 * GIB),))},
        "warn",
        "GPU 0: 30 GiB (75 %) in use by others",
        "nvidia-smi",
    ),
    "a prohibited GPU": (
        {"driver": DriverFacts(version="550", cuda="12.8", cards=(changed(CARD, compute_mode="Prohibited"),))},
        "fail",
        "compute mode Prohibited",
        "sudo nvidia-smi -i 0 -c DEFAULT",
    ),
    "several GPUs without NCCL": (
        {
            "machine": Machine(gpus=(A100, A100), cpu_cores=16, memory_bytes=64 * GIB, cpu_computes_bf16=False),
            "torch": changed(CUDA_12, gpus=("A100", "A100"), nccl=""),
        },
        "fail",
        "several GPUs talk through it",
        "pip install",
    ),
    "a small /dev/shm for several GPUs": (
        {
            "machine": Machine(gpus=(A100, A100), cpu_cores=16, memory_bytes=64 * GIB, cpu_computes_bf16=False),
            "torch": changed(CUDA_12, gpus=("A100", "A100")),
            "limits": changed(facts().limits, shared_memory_bytes=64 * 2**20),
        },
        "warn",
        "/dev/shm has 64 MiB",
        "--shm-size=8g",
    ),
    "little memory": (
        {"limits": changed(facts().limits, available_bytes=GIB)},
        "warn",
        "1.0 GiB of 64 GiB free",
        "end other processes",
    ),
    "few open files": (
        {"limits": changed(facts().limits, open_files=1024, most_open_files=524288)},
        "warn",
        "1,024 open files",
        "ulimit -n 524288",
    ),
    "limited virtual memory": (
        {"limits": changed(facts().limits, address_bytes=8 * GIB)},
        "warn",
        "virtual memory is limited to 8.0 GiB",
        "ulimit -v unlimited",
    ),
    "InfiniBand that cannot lock memory": (
        {"limits": changed(facts().limits, has_infiniband=True, locked_bytes=65536)},
        "warn",
        "locked memory is limited to 64 KiB",
        "ulimit -l unlimited",
    ),
    "a folder that cannot be written": (
        {"folders": (changed(OUTPUT, error="Read-only file system"),)},
        "fail",
        "/data/out (output) cannot be written: Read-only file system",
        "--output-dir",
    ),
    "a full disk": ({"folders": (changed(OUTPUT, free_bytes=2**20),)}, "fail", "nothing can be saved", "df -h /data"),
    "a disk with little room": ({"folders": (changed(OUTPUT, free_bytes=GIB),)}, "warn", "little for", "df -h /data"),
    "no inodes": ({"folders": (changed(OUTPUT, free_files=3),)}, "warn", "room for 3 more files", "df -i /data"),
    "a share without locks": (
        {"folders": (changed(OUTPUT, file_system="nfs4", locks=False),)},
        "warn",
        "a network file system: locks do not work there",
        "flock",
    ),
    "a share without renames": (
        {"folders": (changed(OUTPUT, file_system="fuse.s3fs", renames=False),)},
        "fail",
        "a file cannot replace another",
        "--output-dir",
    ),
    "a token that is not valid": (
        {"hub": HubFacts(has_token=True, refused=True)},
        "warn",
        "not valid",
        "hf auth login",
    ),
    "no network": (
        {"hub": HubFacts(endpoint="https://huggingface.co", error="Name or service not known")},
        "warn",
        "https://huggingface.co cannot be reached: Name or service not known; local folders",
        "HF_HUB_OFFLINE=1",
    ),
    "a SLURM that is down": (
        {"slurm": SlurmFacts(version="23.11", controller="Slurmctld(primary) at head is DOWN")},
        "warn",
        "23.11, but: Slurmctld(primary) at head is DOWN",
        "sinfo",
    ),
    "DeepSpeed without a compiler": (
        {"packages": PackageFacts(installed=HUB | {"deepspeed": "0.19.8"}), "tools": ToolFacts(ninja="/usr/bin/ninja")},
        "warn",
        "there is no C++ compiler",
        "g++",
    ),
    "a ninja that is not on the PATH": (
        {
            "packages": PackageFacts(installed=HUB | {"deepspeed": "0.19.8"}),
            "tools": ToolFacts(compiler="g++ 12", ninja_of_environment="/env/bin/ninja"),
        },
        "warn",
        "ninja is in /env/bin, which is not on the PATH",
        "source /env/bin/activate",
    ),
    "an nvcc of another CUDA": (
        {
            "packages": PackageFacts(installed=HUB | {"deepspeed": "0.19.8"}),
            "tools": ToolFacts(compiler="g++ 12", ninja="/usr/bin/ninja", nvcc="13.0"),
        },
        "warn",
        "nvcc is of CUDA 13.0 and torch of 12.8",
        "CUDA_HOME",
    ),
    "ranks left by another launcher": (
        {"variables": {"RANK": "0", "WORLD_SIZE": "8"}},
        "warn",
        "RANK, WORLD_SIZE left by another launcher",
        "unset RANK WORLD_SIZE",
    ),
    "waiting for every kernel": (
        {"variables": {"CUDA_LAUNCH_BLOCKING": "1"}},
        "warn",
        "slows runs down",
        "unset CUDA_LAUNCH_BLOCKING",
    ),
    "an interface that is not here": (
        {"variables": {"NCCL_SOCKET_IFNAME": "ib0,bond"}},
        "fail",
        "NCCL_SOCKET_IFNAME=ib0,bond names no network interface",
        "name one of lo, eth0",
    ),
    "a missing requirement": (
        {"packages": PackageFacts(installed=HUB, required=("xxhash>=3", 'pytest>=8; extra == "dev"'))},
        "fail",
        "missing or too old: xxhash>=3",
        "pip install 'xxhash>=3'",
    ),
    "an old requirement": (
        {"packages": PackageFacts(installed=HUB | {"peft": "0.9.0"}, required=("peft>=0.18",))},
        "fail",
        "missing or too old: peft>=0.18",
        "pip install 'peft>=0.18'",
    ),
    "an old optional package": (
        {
            "packages": PackageFacts(
                installed=HUB | {"liger-kernel": "0.3.1"}, required=('liger-kernel>=0.5; extra == "liger"',)
            )
        },
        "warn",
        "liger-kernel 0.3.1: liger-kernel>=0.5 is needed for Liger's kernels",
        "pip install 'liger-kernel>=0.5'",
    ),
    "two libraries of NCCL": (
        {"packages": PackageFacts(installed=HUB | {"nvidia-nccl-cu12": "2.27", "nvidia-nccl-cu13": "2.29"})},
        "fail",
        "nvidia-nccl-cu12 and nvidia-nccl-cu13 write to the same folder",
        "pip uninstall",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_said_once_with_what_to_type(case: str) -> None:
    changes, level, words, fix = CASES[case]
    found = wrong(judge(facts(**changes)))
    assert [finding.level for finding in found] == [level], found
    assert words in found[0].text
    assert fix in found[0].fix


def test_every_finding_that_is_not_ok_says_what_to_type() -> None:
    for changes, *_ in CASES.values():
        assert all(finding.fix for finding in wrong(judge(facts(**changes))))


@pytest.mark.parametrize("clash", CLASHES, ids=lambda clash: clash.package)
def test_a_known_clash_is_found_in_its_versions_only_and_names_its_source(clash: Any) -> None:
    bound, other = clash.versions.lstrip("<="), clash.other_versions.lstrip(">=")
    older = bound if "=" in clash.versions else "0.0.1"
    for mine, count in ((older, 1), ("99.0", 0)):
        installed = HUB | {clash.package: mine, clash.other: f"{other}+cu128"}
        found = [
            each for each in wrong(judge(facts(packages=PackageFacts(installed=installed)))) if "clash" in each.text
        ]
        assert len(found) == count
        assert all(clash.source in each.text and clash.fix == each.fix for each in found)


@pytest.mark.parametrize(
    ("version", "condition", "expected"),
    [
        ("0.9.0", "<0.18", True),
        ("0.18", "<0.18", False),
        ("0.18.0.dev0", "<0.18", False),
        ("2.6.0+cu124", ">=2.6", True),
        ("5.0.0rc1", ">=5", True),
        ("0.7.0", "<=0.7", True),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, condition: str, *, expected: bool) -> None:
    assert matches(version, condition) is expected


def test_requirements_of_the_libraries_on_each_other_are_checked_but_for_extras() -> None:
    installed = {"peft": "0.21", "accelerate": "0.20", "torch": "2.9"}
    requires = {"peft": ["accelerate>=0.21", "torch>=1.13", 'black; extra == "quality"', "not installed at all"]}
    assert list(broken_requirements(installed, requires)) == ["peft 0.21 needs accelerate>=0.21, and 0.20 is installed"]


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ((8, 6), ("sm_80",), True),
        ((8, 0), ("sm_86",), False),
        ((9, 0), ("sm_80",), False),
        ((9, 0), ("sm_80", "compute_80"), True),
        ((12, 0), ("sm_120",), True),
        ((9, 0), ("sm_90a",), True),
        ((10, 0), ("sm_90a", "compute_90a"), False),
    ],
)
def test_kernels_run_on_their_own_major_version_or_where_they_are_compiled_when_loaded(
    capability: tuple[int, int], architectures: tuple[str, ...], *, expected: bool
) -> None:
    assert runs_on(capability, architectures) is expected


def test_the_driver_is_read_from_what_nvidia_smi_prints() -> None:
    table = "0, NVIDIA H100, 81559, 1024, Default, 550.54.15\n1, NVIDIA H100, [N/A], 0, Default, 550.54.15\n"
    head = "| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4     |"
    driver = parse_driver(table, head)
    assert (driver.version, driver.cuda, len(driver.cards)) == ("550.54.15", "12.4", 2)
    assert (driver.cards[0].memory_bytes, driver.cards[1].memory_bytes) == (81559 * 2**20, 0)
    assert parse_driver("", "", "Driver/library version mismatch").error == "Driver/library version mismatch"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("/data/x", ("/data", "nfs4")), ("/data2", ("/", "ext4")), ("/a b/c", ("/a b", "tmpfs"))],
)
def test_the_file_system_of_a_folder_is_that_of_the_nearest_mount(folder: str, expected: tuple[str, str]) -> None:
    mounts = "\n".join(
        f"{number} 1 0:{number} / {point} rw,relatime shared:1 - {kind} source rw"
        for number, (point, kind) in enumerate((("/", "ext4"), ("/data", "nfs4"), ("/a\\040b", "tmpfs")))
    )
    assert mount_of(Path(folder), mounts) == expected


def test_no_variable_that_may_hold_a_secret_is_kept() -> None:
    assert not any(is_judged(name) for name in ("HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "PATH"))


@pytest.mark.parametrize(
    ("value", "is_right"),
    [("eth", True), ("=eth0", True), ("=eth", False), ("^lo", True), ("^lo,eth", False), ("ib0", False)],
)
def test_interfaces_are_matched_as_nccl_does(value: str, *, is_right: bool) -> None:
    found = wrong(judge(facts(variables={"NCCL_SOCKET_IFNAME": value})))
    assert (found == []) is is_right


def test_every_extra_that_is_named_is_one_of_the_project() -> None:
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package, (extra, _) in OPTIONAL.items():
        assert any(requirement.startswith(package) for requirement in extras[extra])
