"""Where the benchmark's ranks answer: one on each device, or one a node over its devices where the model needs them. Pure.

After training no part of the model is left in memory: a rank loads the whole base model and the adapter, whatever strategy
has trained it.
"""

from pydantic import BaseModel, ConfigDict

from lft.core.hardware import Machine
from lft.core.logits import CHUNK_LOGITS
from lft.core.model_facts import ModelFacts, UnknownModel
from lft.core.precision import Device
from lft.core.settings import Precision, RunSettings, Strategy
from lft.core.words import counted
from lft.plan.memory import (
    BYTES,
    CPU_FRAMEWORK_BYTES,
    GPU_FRAMEWORK_BYTES,
    LOGIT_BYTES,
    MemoryPrediction,
    quantized_savings,
    row_length,
    weight_bytes,
)
from lft.plan.topology import Topology, choose_topology

SPREAD: tuple[Strategy, ...] = ("zero3", "fsdp", "device-map")
"""Chosen, or asked for, where a model does not fit one device."""


class Answering(BaseModel):
    """The ranks of the benchmark on each node, and why they are so many."""

    model_config = ConfigDict(frozen=True)

    strategy: Strategy
    """`single`: each holds the whole model; `device-map`: one, whose model lies over the node's GPUs."""
    ranks_per_node: int
    threads_per_rank: int
    reason: str = ""
    notice: str = ""


def plan_answering(
    settings: RunSettings,
    machine: Machine,
    topology: Topology,
    trained_with: Strategy | None,
    precision: Precision | None,
    model: ModelFacts | UnknownModel,
) -> Answering:
    """As many ranks as hold the model by the predicted memory; where that is unknown, by how it was trained."""
    devices = len(topology.gpus)
    unknown = isinstance(model, UnknownModel)
    if topology.device == "cpu":
        return _on_cpu(settings, machine, topology, precision or "fp32", model)
    if unknown or not devices:
        is_spread = trained_with in SPREAD and devices > 1
        reason = f"memory unknown; {trained_with} is for models that one GPU does not hold" if is_spread else ""
        return _on_gpus(machine, devices, is_spread=is_spread, reason=reason)
    assert isinstance(model, ModelFacts)
    half: Precision = "bf16" if model.checkpoint_type == "bf16" else "fp16"
    available = min((gpu.memory_bytes for gpu in machine.gpus if gpu.token in topology.gpus), default=0)
    need = {
        spread: predict_answering(
            model, settings, precision or half, "cuda", devices=devices if spread else 1, available_bytes=available
        )
        for spread in (False, True)
    }
    is_spread = not need[False].fits and devices > 1
    chosen = need[is_spread]
    reason = chosen.describe()
    if is_spread:
        reason = f"the whole model on each needs {need[False].figures()}; {reason}"
    return _on_gpus(machine, devices, is_spread=is_spread, reason=reason, notice=_notice(chosen))


def predict_answering(
    model: ModelFacts,
    settings: RunSettings,
    precision: Precision,
    device: Device,
    *,
    devices: int = 1,
    available_bytes: int = 0,
) -> MemoryPrediction:
    """The need of each of the `devices` that one model lies on: weights, keys and values, one layer's work, the loss's chunk.

    Prompts are taken to be as long as the longest row, and answers as long as allowed: the worst case.
    """
    size, batch = BYTES[precision], settings.benchmark.batch_size
    longest = row_length(model, settings)
    tokens = batch * min(longest + settings.benchmark.max_new_tokens, model.max_positions or 2**62)
    cached = 2 * model.layers * model.kv_heads * model.head_dim * size * tokens // devices
    one_layer = (3 * model.intermediate_size + 3 * model.hidden_size) * size * batch * longest
    chunk = CHUNK_LOGITS * (4 if size == 4 else 4 + size) + 2 * batch * longest * model.hidden_size * size
    whole = LOGIT_BYTES * batch * longest * model.vocab_size
    weights = weight_bytes(model, "device-map" if devices > 1 else "single", devices, size)
    return MemoryPrediction(
        weights=weights - quantized_savings(model, settings, size) // devices,
        adapters=4 * model.trained_parameters(settings.lora) // devices,
        gradients=0,
        optimizer=0,
        activations=cached + one_layer,
        logits=whole if model.changes_logits else chunk,
        framework=GPU_FRAMEWORK_BYTES if device == "cuda" else CPU_FRAMEWORK_BYTES,
        loading=0,
        available=available_bytes,
        unit="GPU" if device == "cuda" else "rank",
    )


def plan_benchmark(
    settings: RunSettings,
    machine: Machine,
    trained_with: Strategy | None,
    precision: Precision | None,
    model: ModelFacts | UnknownModel,
) -> tuple[Topology, Answering]:
    """A benchmark alone, on one node, which need not be the one that has trained; fewer GPUs than asked for are no error."""
    alone = {"nodes": 1, "strategy": "auto", "strict": False}
    topology = choose_topology(settings.launch.model_copy(update=alone), machine)
    return topology, plan_answering(settings, machine, topology, trained_with, precision, model)


def _on_gpus(machine: Machine, devices: int, *, is_spread: bool, reason: str, notice: str = "") -> Answering:
    ranks = 1 if is_spread else max(1, devices)
    layout = f"one rank over {counted(devices, 'GPU')}" if is_spread else "one rank a GPU"
    return Answering(
        strategy="device-map" if is_spread else "single",
        ranks_per_node=ranks,
        threads_per_rank=max(1, machine.cpu_cores // ranks),
        reason=f"{layout}: {reason}" if reason else layout,
        notice=notice,
    )


def _on_cpu(
    settings: RunSettings,
    machine: Machine,
    topology: Topology,
    precision: Precision,
    model: ModelFacts | UnknownModel,
) -> Answering:
    """As many ranks as train, or fewer: each holds the whole model."""
    ranks, reason, notice = topology.ranks_per_node, "", ""
    if isinstance(model, ModelFacts):
        while True:
            need = predict_answering(model, settings, precision, "cpu", available_bytes=machine.memory_bytes // ranks)
            if need.fits or ranks == 1:
                break
            ranks -= 1
        reason, notice = need.describe(), _notice(need)
    return Answering(
        strategy="single",
        ranks_per_node=ranks,
        threads_per_rank=max(1, machine.cpu_cores // ranks),
        reason=f"each holds the whole model: {reason}" if reason else "",
        notice=notice,
    )


def _notice(need: MemoryPrediction) -> str:
    if need.fits:
        return ""
    return f"the benchmark is predicted not to fit: {need.figures()}; --set benchmark.batch_size makes it smaller"
