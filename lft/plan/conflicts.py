"""What cannot go together, and what this machine lacks: all of it at once, each with a way out. Pure."""

import json
from collections.abc import Iterator

from lft.core.errors import PreflightError, SettingsError
from lft.core.hardware import Machine
from lft.core.precision import choose_precision
from lft.core.settings import LaunchSettings, RunSettings, Strategy, TrainingSettings
from lft.core.trackers import PACKAGES
from lft.plan.topology import ONE_RANK
from lft.plan.variants import lacks_quantization, variant_conflicts, without_strategies

NEED_DEEPSPEED: tuple[Strategy, ...] = ("zero2", "zero3")
SHARD_THE_OPTIMIZER: tuple[Strategy, ...] = ("zero2", "zero3", "fsdp")
"""Not with bitsandbytes: ZeRO keeps flat parts of float32 copies, and FSDP's parts end in illegal memory accesses
(bitsandbytes#1633)."""


def refuse_conflicts(settings: RunSettings, machine: Machine) -> None:
    """Raise SettingsError where settings contradict each other, PreflightError where this machine lacks something."""
    launch, training = settings.launch, settings.training
    contradictions = [*_ranks_and_devices(launch), *_kernels(training, launch), *_evaluation(settings)]
    contradictions += variant_conflicts(settings)
    if settings.sweep:
        contradictions.append(("sweep describes several runs, and one is asked for", "lft sweep makes them all"))
    lacks = [*_lacks(launch, machine), *_lacks_kernels(training, launch, machine), *_lacks_trackers(training, machine)]
    lacks += lacks_quantization(settings.model, has_bitsandbytes=machine.has_bitsandbytes)
    found = [f"{problem}; {way_out}" for problem, way_out in contradictions + lacks]
    if contradictions:
        raise SettingsError(found, source="the plan", next_step=contradictions[0][1])
    if len(lacks) == 1:
        raise PreflightError(lacks[0][0], next_step=lacks[0][1])
    if lacks:
        lines = "".join(f"\n  {line}" for line in found)
        raise PreflightError(f"{len(lacks)} things cannot be had here:{lines}", next_step=lacks[0][1])


def impossible_strategies(settings: RunSettings, machine: Machine) -> tuple[Strategy, ...]:
    """What cannot be chosen with these settings on this machine."""
    training = settings.training
    without_deepspeed = () if machine.has_deepspeed else NEED_DEEPSPEED
    with_bitsandbytes = () if training.optimizer == "adamw" else SHARD_THE_OPTIMIZER
    with_liger: tuple[Strategy, ...] = ("device-map",) if training.liger else ()
    return (*without_deepspeed, *with_bitsandbytes, *with_liger, *without_strategies(settings))


def _ranks_and_devices(launch: LaunchSettings) -> Iterator[tuple[str, str]]:
    """Settings of ranks and devices that cannot be meant together, each with a way out."""
    asked, on_cpu = launch.strategy, _asks_for_cpu(launch)
    is_one = launch.nodes == 1 and (launch.cpu_procs if on_cpu else launch.gpus) == 1
    if asked in ONE_RANK and launch.nodes > 1:
        problem = f"launch.strategy {asked} is one rank, and launch.nodes is {launch.nodes}"
        yield problem, "leave out --strategy, or use --nodes 1"
    if asked == "device-map" and on_cpu:
        yield "launch.strategy device-map lays layers over GPUs, and the CPU is asked for", "leave out --strategy"
    elif asked == "device-map" and is_one:
        yield "launch.strategy device-map lays layers over GPUs, and one is asked for", "use --strategy single"
    elif asked not in ("auto", *ONE_RANK) and is_one:
        problem = f"launch.strategy {asked} shares work between ranks, and one is asked for"
        yield problem, "leave out --strategy, or ask for more ranks"


def _kernels(training: TrainingSettings, launch: LaunchSettings) -> Iterator[tuple[str, str]]:
    """Optimizers and kernels that the rest of the settings leaves no room for."""
    optimizer, strategy, on_cpu = training.optimizer, launch.strategy, _asks_for_cpu(launch)
    if optimizer != "adamw" and on_cpu:
        yield f"training.optimizer {optimizer} is for GPUs, and the CPU is asked for", "--set training.optimizer=adamw"
    if optimizer != "adamw" and strategy in SHARD_THE_OPTIMIZER:
        problem = f"training.optimizer {optimizer} does not work on the parts that launch.strategy {strategy} makes"
        yield problem, "--set training.optimizer=adamw, whose state is small with LoRA, or use --strategy ddp"
    if training.liger and on_cpu:
        yield "training.liger is for GPUs, and the CPU is asked for", "--set training.liger=false"
    if training.liger and strategy == "device-map":
        problem = "training.liger computes on the first GPU, and launch.strategy device-map lays layers over several"
        yield problem, "--set training.liger=false"


def _evaluation(settings: RunSettings) -> Iterator[tuple[str, str]]:
    """What cannot be measured, or kept by what is not measured."""
    training = settings.training
    if training.keep_best and training.evaluate_every is None:
        problem = "training.keep_best keeps the checkpoint with the lowest held-out loss, and it is not measured"
        yield problem, "--set training.evaluate_every=10min"
    if training.evaluate_every is not None and not settings.data.held_out:
        problem = "training.evaluate_every measures the loss of held-out rows, and data.held_out is 0"
        yield problem, "--set data.held_out=0.02, or --set training.evaluate_every=null"


def _lacks(launch: LaunchSettings, machine: Machine) -> Iterator[tuple[str, str]]:
    """What this machine has not got, each with a way out."""
    if launch.strategy == "device-map" and not machine.gpus and not _asks_for_cpu(launch):
        yield "strategy device-map lays layers over GPUs, and none can be used here", "leave out --strategy"
    if launch.strategy in NEED_DEEPSPEED and not machine.has_deepspeed:
        yield f"strategy {launch.strategy} needs the package deepspeed", "pip install 'lft[deepspeed]', or use fsdp"
    if launch.precision == "fp16" and (not machine.gpus or _asks_for_cpu(launch)):
        try:
            choose_precision("fp16", "cpu", checkpoint_is_bf16=False, device_computes_bf16=False)
        except PreflightError as error:
            yield error.message, error.next_step


def _lacks_kernels(training: TrainingSettings, launch: LaunchSettings, machine: Machine) -> Iterator[tuple[str, str]]:
    """Packages and GPUs that optimizers and kernels need."""
    no_gpu = not machine.gpus and not _asks_for_cpu(launch)
    wanted = (
        (training.optimizer != "adamw", f"training.optimizer {training.optimizer}", "bitsandbytes", "optimizer=adamw"),
        (training.liger, "training.liger", "liger-kernel", "liger=false"),
    )
    installed = {"bitsandbytes": machine.has_bitsandbytes, "liger-kernel": machine.has_liger}
    for is_wanted, name, package, instead in wanted:
        if is_wanted and no_gpu:
            yield f"{name} is for GPUs, and none can be used here", f"--set training.{instead}"
        if is_wanted and not installed[package]:
            extra = package.partition("-")[0]
            yield f"{name} needs the package {package}", f"pip install 'lft[{extra}]', or --set training.{instead}"


def _lacks_trackers(training: TrainingSettings, machine: Machine) -> Iterator[tuple[str, str]]:
    """Packages of trackers that are named."""
    for name in training.trackers:
        if name in machine.missing_trackers:
            without = json.dumps([each for each in training.trackers if each != name])
            problem = f"training.trackers names {name}, and the package {PACKAGES[name]} is not installed"
            yield problem, f"pip install {PACKAGES[name]}, or --set 'training.trackers={without}'"


def _asks_for_cpu(launch: LaunchSettings) -> bool:
    return launch.gpus == 0 or (launch.gpus == "auto" and launch.cpu_procs != "auto")
