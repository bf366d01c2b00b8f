"""The lines of a plan as people read them: what was decided, and why."""

from pydantic import BaseModel, ConfigDict

from lft.core.hardware import Machine
from lft.core.model_facts import ModelFacts, UnknownModel
from lft.core.rows import PreparedFacts
from lft.core.settings import Precision, RunSettings, Strategy, TrainingSettings
from lft.core.words import counted, rounded
from lft.plan.batch import Batch
from lft.plan.strategy import StrategyChoice
from lft.plan.topology import Topology
from lft.plan.variants import more_of, name_of

RANK_HOLDS: dict[Strategy, str] = {
    "single": "one rank",
    "ddp": "each rank holds the whole model and a share of each batch",
    "zero2": "each rank holds the whole model, and a share of the gradients and of the optimizer's state",
    "zero3": "each rank holds a share of the model, and gathers a layer when it computes it",
    "fsdp": "each rank holds a share of every layer, and gathers a layer when it computes it",
    "device-map": "one rank, whose model lies in layers over the GPUs; they compute in turn",
}


Rows = int | PreparedFacts | None
"""What is known of the data, or about how many rows there are."""


class Choice(BaseModel):
    """One line of the plan: what was decided, and why."""

    model_config = ConfigDict(frozen=True)

    name: str
    value: str
    reason: str = ""


def plan_lines(
    settings: RunSettings,
    machine: Machine,
    topology: Topology,
    model: ModelFacts | UnknownModel,
    chosen: StrategyChoice,
    batch: tuple[Batch, str],
    precision: tuple[Precision | None, str],
    rows: Rows,
) -> tuple[Choice, ...]:
    """The lines of the plan; `batch` and `precision` come with their reasons."""
    lora, training, strategy = settings.lora, settings.training, chosen.strategy
    threads = counted(topology.threads_per_rank, "thread")
    length = counted(training.max_steps, "step") if training.max_steps else counted(training.num_epochs, "epoch")
    backend = "gloo" if topology.device == "cpu" else "nccl"
    over = f" over {backend}" if topology.ranks > 1 else ""
    each_node = f"{topology.nodes:,} nodes like this one: " if topology.nodes > 1 else ""
    spread = len(topology.gpus) if topology.ranks_per_node == 1 else 0
    devices = counted(spread, "GPU") if spread > 1 else topology.device
    asked = settings.launch.strategy
    instead = "" if asked in ("auto", strategy) else f", which has nobody to share with: {asked} is for several"
    configs = "accelerate.yaml" + (" and deepspeed.json" if strategy in ("zero2", "zero3") else "")
    memory = f": {chosen.memory.describe()}" if chosen.memory else ""
    why = f"; {chosen.reason}" if chosen.reason else ""
    trained = ""
    if isinstance(model, ModelFacts):
        trained = f": {rounded(model.trained_parameters(lora))} of {rounded(model.parameters)} trained"
    adapter = f"{name_of(lora)} r={lora.r} alpha={lora.lora_alpha}{trained}, {length}, learning rate {training.learning_rate:g}"
    lines = (
        ("machine", each_node + machine.describe(), machine.limits()),
        ("ranks", f"{counted(topology.ranks, 'rank')} on {devices}, {threads} each", topology.reason),
        ("strategy", strategy + over + memory, RANK_HOLDS[strategy] + instead + why),
        ("recompute", _recompute(chosen), chosen.checkpointing_reason),
        ("precision", precision[0] or "auto", precision[1] + _tf32(precision[0], topology, machine)),
        ("batch", batch[0].describe(packing=settings.data.packing), batch[1]),
        *_steps(settings, batch[0], rows),
        ("adapter", adapter, more_of(lora)),
        *_quantization(settings),
        *_kernels(training),
        ("data", _sources(settings), _data(settings, rows)),
        (
            "writes",
            str(settings.output_dir),
            f"the adapter; plan, logs and report in run/; {configs} in run/launch_configs/",
        ),
    )
    return tuple(Choice(name=name, value=value, reason=reason) for name, value, reason in lines)


def _recompute(chosen: StrategyChoice) -> str:
    return "activations of each layer (gradient checkpointing)" if chosen.gradient_checkpointing else "nothing"


def _tf32(precision: Precision | None, topology: Topology, machine: Machine) -> str:
    """GPUs that compute bf16 also have TF32: both came with Ampere."""
    has_it = any(gpu.computes_bf16 and gpu.token in topology.gpus for gpu in machine.gpus)
    return "; multiplied as TF32 (NVIDIA_TF32_OVERRIDE=0 forbids it)" if precision == "fp32" and has_it else ""


def _kernels(training: TrainingSettings) -> tuple[tuple[str, str, str], ...]:
    """What is computed otherwise than by default."""
    optimizer = {
        "adamw_8bit": "AdamW, its moments in 8 bits",
        "paged_adamw_8bit": "AdamW, its moments in 8 bits, moved to the CPU where a GPU is full",
    }.get(training.optimizer)
    lines = (("optimizer", optimizer, "asked for; by bitsandbytes"),) if optimizer else ()
    kernels = "Liger's for norms, rotary positions and gated activations"
    return (*lines, ("kernels", kernels, "asked for; the loss stays lft's")) if training.liger else lines


def _quantization(settings: RunSettings) -> tuple[tuple[str, str, str], ...]:
    """How the base's weights are kept, where it is not as they are."""
    kept = settings.model.quantization
    named = {"4bit": "4 bits (NF4, scales quantized too)", "8bit": "8 bits (LLM.int8())"}.get(kept)
    return (("weights", named, "asked for; by bitsandbytes, while they are loaded"),) if named else ()


def _steps(settings: RunSettings, batch: Batch, rows: Rows) -> tuple[tuple[str, str, str], ...]:
    """The steps of the run, where they are not asked for and the rows are known."""
    training, held_out = settings.training, settings.data.held_out
    if rows is None or training.max_steps is not None:
        return ()
    epochs = counted(training.num_epochs, "epoch")
    if isinstance(rows, PreparedFacts):
        steps = -(-rows.items // batch.global_batch) * training.num_epochs
        packs = f" in {counted(rows.items, 'pack')}" if settings.data.packing else ""
        return (("steps", f"{steps:,}", f"{counted(rows.training, 'row')}{packs}, {epochs}"),)
    trained = max(1, round(rows * (1 - held_out) if held_out < 1 else rows - held_out))
    steps = -(-trained // batch.global_batch) * training.num_epochs
    reason = (
        f"{counted(rows, 'line')} of data, about {trained:,} of them trained, {epochs}; rows may be left out or cut"
    )
    if settings.data.packing:
        return (("steps", f"at most {steps:,}", f"{reason}, and several make a pack; lft data prepare tells how many"),)
    return (("steps", f"about {steps:,}", reason),)


def _data(settings: RunSettings, rows: Rows) -> str:
    """What is known of the data, and what is held out for what."""
    if not isinstance(rows, PreparedFacts):
        return _held_out(settings)
    prompts = settings.benchmark.num_prompts
    compared = f", {min(prompts, rows.held_out)} to compare base and tuned model" if rows.held_out and prompts else ""
    sides = f"{rows.training:,} rows to train on, {rows.held_out:,} held out{compared}"
    return f"{sides}; {rows.trained_share:.0%} of the tokens trained; tokens found in the cache"


def _sources(settings: RunSettings) -> str:
    """The sources in words, each with its weight where that is not 1."""
    return ", ".join(
        each.source + (f" (each row {each.weight:g} times)" if each.weight != 1 else "")
        for each in settings.data.sources
    )


def _held_out(settings: RunSettings) -> str:
    held_out, prompts = settings.data.held_out, settings.benchmark.num_prompts
    share = f"{100 * held_out:.3g} % of the rows" if held_out < 1 else f"{held_out:g} rows"
    if not held_out:
        return "no row held out, so no benchmark"
    return f"{share} held out" + (f", at most {prompts} of them to compare base and tuned model" if prompts else "")
