"""Environment variables that change, or confuse, what torch, NCCL and launchers do. Pure.

None of them is one that lft reads or sets: those are in core/rank.py.
"""

from collections.abc import Iterator, Mapping, Sequence

from lft.core.rank import LAUNCHER_NAMES, LAUNCHER_PREFIXES
from lft.doctor.facts import Facts
from lft.doctor.finding import Finding, fail, ok, warn

SLOW = {
    "CUDA_LAUNCH_BLOCKING": ("1", "every kernel is waited for"),
    "PYTORCH_NO_CUDA_MEMORY_CACHING": ("1", "every tensor asks the driver for memory"),
    "TORCH_DISTRIBUTED_DEBUG": ("DETAIL", "every collective is checked by another one"),
    "NCCL_P2P_DISABLE": ("1", "GPUs talk through the CPU's memory"),
    "NCCL_SHM_DISABLE": ("1", "GPUs of one machine talk over the network"),
    "NCCL_IB_DISABLE": ("1", "nodes talk over TCP, not InfiniBand"),
    "NVIDIA_TF32_OVERRIDE": ("0", "float32 is multiplied without TF32"),
}
"""Variable -> the value with which it slows runs down, and how."""
PINNING = ("KMP_AFFINITY", "GOMP_CPU_AFFINITY", "OMP_PROC_BIND", "OMP_PLACES")
HANGING = ("TORCH_NCCL_ASYNC_ERROR_HANDLING", "NCCL_ASYNC_ERROR_HANDLING")
INTERFACES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
TOLD = (*OFFLINE, "HF_ENDPOINT", "NCCL_DEBUG", "PYTORCH_CUDA_ALLOC_CONF", "PYTHONPATH", "LD_PRELOAD", "OMP_NUM_THREADS")
"""Harmless, and good to know when something is odd."""
MOST_SHOWN = 60


def is_judged(name: str) -> bool:
    """Whether a variable is looked at; nothing else of the environment is kept."""
    known = {*SLOW, *PINNING, *HANGING, *INTERFACES, *TOLD}
    return name in known | LAUNCHER_NAMES or name.startswith(("NCCL_", *LAUNCHER_PREFIXES))


def judge_environment(facts: Facts) -> Iterator[Finding]:
    """What is set and should not be; else what is set."""
    found = list(_problems(facts.variables, facts.interfaces))
    told = {name: value for name, value in facts.variables.items() if name in TOLD or name.startswith("NCCL_")}
    wrong = " ".join(each.text for each in found)
    shown = [f"{name}={_short(value)}" for name, value in sorted(told.items()) if name not in wrong]
    yield from found
    if shown or not found:
        yield ok("environment", ", ".join(shown) or "nothing that confuses launchers")


def _problems(variables: Mapping[str, str], interfaces: Sequence[str]) -> Iterator[Finding]:
    left = sorted(name for name in variables if name in LAUNCHER_NAMES or name.startswith(LAUNCHER_PREFIXES))
    if left:
        text = f"{', '.join(left)} left by another launcher: lft launch leaves them out, LLMFineTuner would obey them"
        yield warn("environment", text, f"unset {' '.join(left)}")
    for name, (value, effect) in SLOW.items():
        if variables.get(name, "").upper() == value:
            yield warn("environment", f"{name}={value} slows runs down: {effect}", f"unset {name}")
    for name in PINNING:
        if name in variables and variables[name].lower() not in ("", "false", "none", "disabled"):
            text = f"{name}={_short(variables[name])} may pin all ranks of a machine to the same cores"
            yield warn("environment", text, f"unset {name}")
    for name in HANGING:
        if variables.get(name) == "0":
            yield warn("environment", f"{name}=0: a rank that fails leaves the others hanging", f"unset {name}")
    for name in INTERFACES:
        if name in variables and not _named(variables[name], interfaces):
            text = f"{name}={variables[name]} names no network interface of this machine, so ranks cannot meet"
            yield fail("environment", text, f"unset {name}, or name one of {', '.join(interfaces)}")


def _named(value: str, interfaces: Sequence[str]) -> bool:
    """Whether NCCL's list (names that begin so; after = exactly so; after ^ all others) leaves an interface."""
    names = [name for name in value.lstrip("^=").split(",") if name]
    if value.startswith("^"):
        exact = value.startswith("^=")
        return any(not _is_one(interface, names, exact=exact) for interface in interfaces)
    return any(_is_one(interface, names, exact=value.startswith("=")) for interface in interfaces)


def _is_one(interface: str, names: Sequence[str], *, exact: bool) -> bool:
    return any(interface == name or (not exact and interface.startswith(name)) for name in names)


def _short(value: str) -> str:
    return value if len(value) <= MOST_SHOWN else f"{value[:MOST_SHOWN]}..."
