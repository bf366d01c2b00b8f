"""The options that change what a run does, shared by the verbs that plan or prepare one; and settings made from them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from lft.cli.run_argument import DEFAULT_FILE
from lft.cli.verb import option
from lft.core.errors import SettingsError
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings
from lft.demo import demo_settings

Function = TypeVar("Function", bound=Callable[..., Any])

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

WHAT, WHERE, HOW = "What to train", "Where", "How"
STRATEGIES = ("auto", "single", "ddp", "zero2", "zero3", "fsdp", "device-map")
PRECISIONS = ("auto", "fp32", "fp16", "bf16")

_WHAT = (
    click.argument("run_file", required=False, type=click.Path(path_type=Path)),
    option(WHAT, "--demo", is_flag=True, help="The embedded example: WordNet definitions."),
    option(WHAT, "--model", metavar="NAME", words="file", help="Hub id, folder or .gguf file."),
    option(WHAT, "--dataset", metavar="SOURCE", words="file", help="File, folder, pattern or Hub data set."),
)
_OUTPUT = (option(WHAT, "--output-dir", metavar="DIR", words="dir", help="Folder of the adapter."),)
_SET = (option(WHAT, "--set", "sets", metavar="KEY=VALUE", multiple=True, help="Any setting, e.g. --set lora.r=16."),)
_GPUS = (option(WHERE, "--gpus", metavar="N|auto", words=("auto",), help="GPUs per node; 0 runs on the CPU."),)
_MACHINES = (option(WHERE, "--nodes", metavar="N", help="Machines of the run."),)
_WHERE = (
    *_GPUS,
    option(WHERE, "--cpu-procs", metavar="N|auto", words=("auto",), help="Ranks per node on the CPU."),
    *_MACHINES,
    option(WHERE, "--strict/--no-strict", default=None, help="Fewer GPUs than asked for are an error."),
)
_HOW = (
    option(HOW, "--strategy", metavar="auto|NAME", words=STRATEGIES, help=f"{', '.join(STRATEGIES[1:])}."),
    option(HOW, "--precision", metavar="TYPE", words=PRECISIONS, help=f"Of the base model: {', '.join(PRECISIONS)}."),
    option(HOW, "--restarts", metavar="N", help="Starts again after failures that may pass."),
    option(HOW, "--hang-timeout", metavar="SECONDS|auto", words=("auto",), help="No progress for so long is a hang."),
    option(HOW, "--grace", metavar="SECONDS", help="How long ranks may take to save and leave."),
)
_JOB = (
    option("Job", "--time", metavar="H:M:S", help="Time limit of the job."),
    option("Job", "--partition", metavar="NAME", help="Partition to submit to."),
    option("Job", "--account", metavar="NAME", help="Account to charge."),
)
_RESUME = (
    option(
        HOW,
        "--resume",
        metavar="auto|never|PATH",
        words=("auto", "never"),
        default="auto",
        help="The newest checkpoint, none, or this one.",
    ),
)
_NODES = (
    option(WHERE, "--rdzv", metavar="HOST:PORT", help="Without a scheduler: where rank 0 listens."),
    option(WHERE, "--node-rank", metavar="K", type=int, help="With --rdzv: which node this is, from 0."),
)


def plan_options(function: Function) -> Function:
    """Add the run file and all options of a plan to a command."""
    return _with(_WHAT + _OUTPUT + _SET + _WHERE + _HOW, function)


def data_options(function: Function) -> Function:
    """Add the run file and the options that say which data, for which model."""
    return _with(_WHAT + _SET, function)


def resume_options(function: Function) -> Function:
    """Add those options of a plan that change how a run that is there goes on."""
    return _with(_SET + _WHERE + _HOW, function)


def allocation_options(function: Function) -> Function:
    """Add the run file and the options that shape a SLURM job, without those of its ranks."""
    return _with(_WHAT[:1] + _OUTPUT + _SET + _GPUS + _MACHINES + _JOB, function)


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
    for each in reversed(options):
        function = each(function)
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
