"""The options that change what a run does, shared by the verbs that plan or prepare one; and settings made from them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from lft.core.errors import SettingsError
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings
from lft.demo import demo_settings

Function = TypeVar("Function", bound=Callable[..., Any])
DEFAULT_FILE = "lft.yaml"

# option -> the setting it stands for
FLAGS = {
    "model": "model.name",
    "dataset": "data.source",
    "output_dir": "output_dir",
    "gpus": "launch.gpus",
    "cpu_procs": "launch.cpu_procs",
    "strategy": "launch.strategy",
    "precision": "launch.precision",
    "strict": "launch.strict",
    "nodes": "launch.nodes",
    "restarts": "launch.restarts",
    "hang_timeout": "launch.hang_timeout_seconds",
    "grace": "launch.grace_seconds",
    "partition": "slurm.partition",
    "account": "slurm.account",
    "time": "slurm.time",
    "num_prompts": "benchmark.num_prompts",
}

_WHAT = (
    click.argument("run_file", required=False, type=click.Path(path_type=Path)),
    click.option(
        "--demo", is_flag=True, help="The embedded example: SmolLM2-135M-Instruct learns WordNet definitions."
    ),
    click.option("--model", metavar="NAME", help="Hub id, folder or .gguf file."),
    click.option("--dataset", metavar="SOURCE", help="File, folder, pattern or Hub data set."),
)
_WHERE = (click.option("--output-dir", metavar="DIR", help="Folder of the adapter."),)
_SET = (click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Any setting, e.g. --set lora.r=16."),)
_HOW = (
    click.option("--gpus", metavar="N|auto", help="GPUs per node; 0 runs on the CPU."),
    click.option("--nodes", metavar="N", help="Machines of the run."),
    click.option("--cpu-procs", metavar="N|auto", help="Ranks per node on the CPU."),
    click.option("--strategy", metavar="auto|single|ddp|zero2|zero3|fsdp|device-map", help="How ranks share the work."),
    click.option("--precision", metavar="auto|fp32|fp16|bf16", help="Number type of the frozen base model."),
    click.option(
        "--strict/--no-strict", default=None, help="Whether fewer GPUs than asked for are an error; in SLURM jobs, yes."
    ),
    click.option("--restarts", metavar="N", help="How often to start again after a failure that may pass."),
    click.option("--hang-timeout", metavar="SECONDS|auto", help="No progress for so long is a hang."),
    click.option("--grace", metavar="SECONDS", help="How long ranks may take to save and leave."),
)

_JOB = (
    click.option("--time", metavar="H:M:S", help="Time limit of the job."),
    click.option("--partition", metavar="NAME", help="Partition to submit to."),
    click.option("--account", metavar="NAME", help="Account to charge."),
)
_RESUME = (
    click.option(
        "--resume",
        metavar="auto|never|PATH",
        default="auto",
        help="Go on from the newest checkpoint; begin anew; or go on from this one, whatever has changed.",
    ),
)
_NODES = (
    click.option("--rdzv", metavar="HOST:PORT", help="Several nodes without a scheduler: where rank 0 will listen."),
    click.option("--node-rank", metavar="K", type=int, help="With --rdzv: which of the nodes this one is, from 0."),
)


def plan_options(function: Function) -> Function:
    """Add the run file and all options of a plan to a command."""
    return _with(_WHAT + _WHERE + _HOW + _SET, function)


def data_options(function: Function) -> Function:
    """Add the run file and the options that say which data, for which model."""
    return _with(_WHAT + _SET, function)


def resume_options(function: Function) -> Function:
    """Add those options of a plan that change how a run that is there goes on."""
    return _with(_HOW + _SET, function)


def job_options(function: Function) -> Function:
    """Add the options that only a SLURM job has; its other settings are --set slurm.NAME=VALUE."""
    return _with(_JOB, function)


def resume_option(function: Function) -> Function:
    """Add --resume, which says from where a launch starts."""
    return _with(_RESUME, function)


def node_options(function: Function) -> Function:
    """Add those by which nodes find each other without a scheduler."""
    return _with(_NODES, function)


def _with(options: Sequence[Callable[[Function], Function]], function: Function) -> Function:
    for option in reversed(options):
        function = option(function)
    return function


def given_flags(flags: dict[str, Any]) -> dict[str, tuple[str, object]]:
    """Setting -> flag and value, of the flags that were given."""
    return {FLAGS[name]: (f"--{name.replace('_', '-')}", value) for name, value in flags.items() if value is not None}


def settings_from(run_file: Path | None, demo: bool, sets: tuple[str, ...], flags: dict[str, Any]) -> RunSettings:
    """Settings of the run file (./lft.yaml when none is named), changed by the flags that were given.

    Raises SettingsError; without any file, model and data it says how to get one.
    """
    given = given_flags(flags)
    if demo and run_file is not None:
        raise SettingsError([f"--demo  brings its own settings, and {run_file} is named too; leave out one of them"])
    if demo:
        given = {key: ("--demo", value) for key, value in demo_settings().items() if key not in given} | given
    elif run_file is None and Path(DEFAULT_FILE).exists():
        run_file = Path(DEFAULT_FILE)
    elif run_file is None and not {"model.name", "data.source"} <= given.keys() and not sets:
        raise SettingsError(
            [f"no run file is named, there is no ./{DEFAULT_FILE}, and --model and --dataset are not both given"],
            next_step="lft launch --demo, or lft launch --model NAME --dataset FILE, or write lft.yaml:\n\n"
            "    model: {name: HuggingFaceTB/SmolLM2-135M-Instruct}\n    data: {source: ./data.jsonl}\n",
        )
    return read_settings(run_file, given, sets)
