"""Smaller runs: what would fit where a run does not, or did not. The global batch, and so each step, stays the same. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lft.core.hardware import Machine
from lft.core.model_facts import ModelFacts
from lft.core.settings import Precision, RunSettings, Strategy
from lft.plan.memory import MemoryPrediction, predict_memory, row_length
from lft.plan.topology import Topology

SHORTEST_ROWS = 64
"""Tokens; shorter rows than these are not proposed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallerRun:
    """The same run with less at a time: what to change, by the names of the settings, and what it is predicted to need."""

    changes: dict[str, int | str]
    memory: MemoryPrediction

    def flags(self) -> str:
        """What to add to the command line."""
        return " ".join(f"--set {name}={value}" for name, value in self.changes.items())

    def __str__(self) -> str:
        return f"{self.flags()}   predicted {self.memory.figures()}"


@dataclass(frozen=True, slots=True)
class Predictor:
    """predict_memory with all but settings and strategy filled in."""

    machine: Machine
    topology: Topology
    precision: Precision | None
    model: ModelFacts

    def __call__(self, settings: RunSettings, strategy: Strategy) -> MemoryPrediction:
        """The need of each device, beside what there is."""
        topology, gpus = self.topology, self.topology.gpus
        half: Precision = "bf16" if self.model.checkpoint_type == "bf16" else "fp16"
        on_cpu = topology.device == "cpu"
        available = self.machine.memory_bytes // topology.ranks_per_node
        if not on_cpu:
            available = min((gpu.memory_bytes for gpu in self.machine.gpus if gpu.token in gpus), default=0)
        return predict_memory(
            self.model,
            settings,
            strategy,
            devices=len(gpus) if strategy == "device-map" else topology.ranks,
            # left open, a CPU may take float32, and a GPU takes 16 bits
            precision=self.precision or ("fp32" if on_cpu else half),
            device=topology.device,
            available_bytes=available,
        )


def first_that_fits(
    settings: RunSettings, strategies: Sequence[Strategy], predict: Predictor, most_bytes: int | None = None
) -> SmallerRun | None:
    """The first smaller run that fits and needs at most `most_bytes`; `strategies` begin with the one that did not fit."""
    for strategy, batch_size, checkpointing, max_length in _smaller(settings, strategies, predict):
        changed = _changed(settings, batch_size, max_length, checkpointing=checkpointing)
        need = predict(changed, strategy)
        if need.fits and (most_bytes is None or need.total <= most_bytes):
            changes: dict[str, int | str] = {}
            if batch_size != settings.training.batch_size:
                changes["training.batch_size"] = batch_size
                changes["training.global_batch_size"] = _global_batch(settings, predict.topology)
            if checkpointing and settings.training.gradient_checkpointing is not True:
                changes["training.gradient_checkpointing"] = "true"
            if strategy != strategies[0]:
                changes["launch.strategy"] = strategy
            if max_length != settings.data.max_length:
                changes["data.max_length"] = max_length
            return SmallerRun(changes=changes, memory=need)
    return None


def _changed(settings: RunSettings, batch_size: int, max_length: int, *, checkpointing: bool) -> RunSettings:
    wanted = {"batch_size": batch_size, "gradient_checkpointing": checkpointing}
    training = settings.training.model_copy(update=wanted)
    data = settings.data.model_copy(update={"max_length": max_length})
    return settings.model_copy(update={"training": training, "data": data})


def _smaller(
    settings: RunSettings, strategies: Sequence[Strategy], predict: Predictor
) -> Iterator[tuple[Strategy, int, bool, int]]:
    """Strategy, batch size, gradient checkpointing and row length, the cheapest first.

    Smaller batches cost next to nothing; then computing activations twice; then passing more between ranks; and at last
    shorter rows, which train something else.
    """
    now, length, own = settings.training, row_length(predict.model, settings), settings.data.max_length
    checkpointed = now.gradient_checkpointing is True
    per_rank = _global_batch(settings, predict.topology) // predict.topology.ranks
    smaller = [size for size in range(now.batch_size - 1, 0, -1) if per_rank % size == 0]
    sizes = [now.batch_size, *smaller]
    yield from ((strategies[0], size, checkpointed, own) for size in smaller)
    yield from ((strategies[0], size, True, own) for size in sizes if not checkpointed)
    for strategy in strategies[1:]:
        yield from ((strategy, size, again, own) for size in sizes for again in sorted({checkpointed, True}))
    lengths = [length >> halvings for halvings in range(1, length.bit_length()) if length >> halvings >= SHORTEST_ROWS]
    yield from ((strategy, sizes[-1], True, rows) for rows in lengths for strategy in strategies)


def _global_batch(settings: RunSettings, topology: Topology) -> int:
    return settings.training.global_batch_size or settings.training.batch_size * topology.ranks
