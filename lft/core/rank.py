"""Who this process is among the ranks, and the one table of environment names that lft reads or sets.

Nothing else in lft touches `os.environ`; a test checks it.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE = "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"
LOCAL_SIZE = "LOCAL_SIZE"
MASTER_ADDR, MASTER_PORT = "MASTER_ADDR", "MASTER_PORT"
CACHE, XDG_CACHE = "LFT_CACHE", "XDG_CACHE_HOME"
HF_HOME, HF_HUB_CACHE = "HF_HOME", "HF_HUB_CACHE"
CUDA_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
HIP_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES = "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"
LAUNCHER_PID = "LFT_LAUNCHER_PID"
SLURM_CONF = "SLURM_CONF"

# What a launcher around this one may have left behind; inherited, it would make a rank believe it is another one.
LAUNCHER_NAMES = frozenset({RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT})
LAUNCHER_NAMES |= {LAUNCHER_PID, "GROUP_RANK", "GROUP_WORLD_SIZE", LOCAL_SIZE, "CROSS_RANK", "CROSS_SIZE"}
# What accelerate launch decides in the trainer's place, unless it is forgotten.
ACCELERATE_PREFIXES = ("ACCELERATE_", "FSDP_", "PARALLELISM_CONFIG_")
LAUNCHER_PREFIXES = (*ACCELERATE_PREFIXES, "TORCHELASTIC_", "ROLE_")
# SLURM keeps a job's environment in files and shows it to its administrators.
SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|_KEY$|^KEY$", re.I
)
SECRET_VALUE = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
"""An address with a password in it, as proxies may have."""
NO_SECRETS = frozenset({"TOKENIZERS_PARALLELISM"})
# An interactive job around this process would steer the one that is submitted.
STEP_PREFIXES = ("SRUN_", "SLURM_CPU_BIND", "SLURM_MEM_BIND", "SLURM_GPU_BIND", "SLURM_STEP")
JOB_PREFIXES = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One process of a run; without any RANK-style variable, the only one."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes what all ranks share."""
        return self.rank == 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Rank":
        """Read RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE, as torchrun and lft set them.

        The last is LOCAL_SIZE for deepspeed's launcher.
        """
        rank, world_size = int(environment.get(RANK, 0)), int(environment.get(WORLD_SIZE, 1))
        return cls(
            rank=rank,
            local_rank=int(environment.get(LOCAL_RANK, rank)),
            world_size=world_size,
            local_world_size=int(environment.get(LOCAL_WORLD_SIZE, environment.get(LOCAL_SIZE, world_size))),
        )

    def to_environment(self) -> dict[str, str]:
        """The variables from which `from_environment` makes this rank again."""
        values = {
            RANK: self.rank,
            LOCAL_RANK: self.local_rank,
            WORLD_SIZE: self.world_size,
            LOCAL_WORLD_SIZE: self.local_world_size,
        }
        return {name: str(value) for name, value in values.items()}


def launcher_pid() -> int | None:
    """The process that must outlive this one; None where another launcher than lft started it."""
    return int(os.environ[LAUNCHER_PID]) if LAUNCHER_PID in os.environ else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenRendezvous:
    """Where the launcher that started this process says the ranks meet."""

    host: str
    port: int
    """0: rank 0 takes a free one and publishes it in the run directory."""
    is_served: bool
    """torchrun's agent already listens there; otherwise rank 0 is to."""
    life: str
    """Counts the restarts of torchrun's ranks, which meet at the same place again."""


def given_rendezvous() -> GivenRendezvous | None:
    """What torchrun, accelerate or deepspeed say in the environment; None where lft started this process."""
    if MASTER_ADDR not in os.environ or MASTER_PORT not in os.environ:
        return None
    return GivenRendezvous(
        host=os.environ[MASTER_ADDR],
        port=int(os.environ[MASTER_PORT]),
        is_served=os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        life=os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"),
    )


def tell_accelerate(choice: str) -> None:
    """Set ACCELERATE_<choice>, the only way in which accelerate's state learns of DeepSpeed or FSDP."""
    os.environ[f"ACCELERATE_{choice}"] = "true"


def forget_accelerate() -> None:
    """Drop what accelerate launch chose (precision, DeepSpeed, accumulation, ...): the order says it, and is obeyed."""
    for name in [name for name in os.environ if name.startswith(ACCELERATE_PREFIXES)]:
        del os.environ[name]


def clean_environment() -> dict[str, str]:
    """This process's environment without what another launcher left in it."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in LAUNCHER_NAMES and not name.startswith(LAUNCHER_PREFIXES)
    }


def visible_gpus(name: str = CUDA_VISIBLE_DEVICES) -> tuple[str, ...] | None:
    """The tokens of CUDA_VISIBLE_DEVICES or its like, opaque (indices, UUIDs, MIG names); None where it is not set.

    As CUDA reads it: a token twice hides all GPUs, and what follows the first token that names none is ignored.
    """
    value = os.environ.get(name)
    if value is None:
        return None
    tokens = tuple(token.strip() for token in value.split(","))
    named = [not token or token.startswith("-") or token == "NoDevFiles" for token in tokens]
    tokens = tokens[: named.index(True)] if True in named else tokens
    return tokens if len(set(tokens)) == len(tokens) else ()


def is_secret(name: str, value: str) -> bool:
    """Whether an environment variable looks as if it held one."""
    return bool((SECRET_NAME.search(name) and name not in NO_SECRETS) or SECRET_VALUE.search(value))


def secret_names() -> list[str]:
    """The variables that are kept out of jobs, by name."""
    return sorted(name for name, value in os.environ.items() if is_secret(name, value))


def environment_for_jobs() -> dict[str, str]:
    """This process's environment as a job may have it: without secrets, another launcher's words, or another job's."""
    return {
        name: value
        for name, value in clean_environment().items()
        if not is_secret(name, value) and (name == SLURM_CONF or not name.startswith(JOB_PREFIXES))
    }


def environment_for_steps() -> dict[str, str]:
    """This process's environment without what an interactive step around it would steer another one by."""
    return {name: value for name, value in clean_environment().items() if not name.startswith(STEP_PREFIXES)}


def public_variables() -> dict[str, str]:
    """This process's environment without secrets, for those who judge what is set there."""
    return {name: value for name, value in os.environ.items() if not is_secret(name, value)}


def slurm_variables() -> dict[str, str]:
    """What SLURM says of this process's job and step."""
    return {name: value for name, value in os.environ.items() if name.startswith("SLURM_")}


def started_again_by_scheduler() -> bool:
    """Whether SLURM has started this job before: it does so again for as long as it is told to."""
    return os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0")


def cache_folder() -> Path:
    """Where converted models and tokenized data are kept: LFT_CACHE, else lft in the user's cache folder."""
    if CACHE in os.environ:
        return Path(os.environ[CACHE]).expanduser()
    return Path(os.environ.get(XDG_CACHE) or "~/.cache").expanduser() / "lft"


def hub_cache_folder() -> Path:
    """Where the Hub's client keeps models and data sets: HF_HUB_CACHE, else hub in HF_HOME, else in the user's cache folder."""
    home = os.environ.get(HF_HOME) or f"{os.environ.get(XDG_CACHE) or '~/.cache'}/huggingface"
    return Path(os.environ.get(HF_HUB_CACHE) or f"{home}/hub").expanduser()


def tokenize_serially() -> None:
    """One thread for each process that tokenizes, from now on: there are as many processes as cores."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def use_defaults(values: Mapping[str, str]) -> None:
    """Set variables that are not set yet, before the libraries that read them at import are imported."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


@contextmanager
def with_defaults(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables that are not set yet, for a while."""
    ours = {name: value for name, value in values.items() if name not in os.environ}
    os.environ |= ours
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)  # who reads one may take it away (MLflow)
