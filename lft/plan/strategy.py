"""How ranks share the work: the cheapest strategy whose predicted memory fits, and what would fit where none does. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lft.core.errors import PreflightError, SettingsError
from lft.core.hardware import Machine
from lft.core.model_facts import ModelFacts, UnknownModel
from lft.core.precision import choose_precision
from lft.core.settings import LaunchSettings, Precision, RunSettings, Strategy
from lft.plan.memory import MemoryPrediction, predict_memory, row_length
from lft.plan.topology import ONE_RANK, Topology

CHEAPEST_FIRST: tuple[Strategy, ...] = ("ddp", "zero2", "fsdp", "zero3", "device-map")
"""By what they pass between ranks in a step; device-map passes least and computes on one GPU at a time."""
NEED_DEEPSPEED: tuple[Strategy, ...] = ("zero2", "zero3")
ENOUGH_LESS = 0.9
"""After running out of memory the prediction is known to be low: the next try needs at least a tenth less."""
SHORTEST_ROWS = 64
"""Tokens; shorter rows than these are not proposed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyChoice:
    """The strategy, what it needs (None where the model is unknown), why, and what its user should know."""

    strategy: Strategy
    memory: MemoryPrediction | None
    reason: str = ""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallerRun:
    """The same run with less at a time, and what it is predicted to need. The global batch stays the same."""

    batch_size: int
    max_length: int
    global_batch_size: int
    memory: MemoryPrediction

    def flags(self) -> str:
        """What to add to the command line."""
        changes = f"training.batch_size={self.batch_size}", f"data.max_length={self.max_length}"
        batch = f"training.global_batch_size={self.global_batch_size}"
        return " ".join(f"--set {change}" for change in (*changes, batch))

    def __str__(self) -> str:
        return f"{self.flags()}   predicted {self.memory.figures()}"


def refuse_conflicts(launch: LaunchSettings, machine: Machine) -> None:
    """Raise all that cannot go together, with the ways out: SettingsError where settings contradict each other.

    PreflightError where this machine lacks something.
    """
    contradictions, lacks = list(_contradictions(launch)), list(_lacks(launch, machine))
    found = [f"{problem}; {way_out}" for problem, way_out in contradictions + lacks]
    if contradictions:
        raise SettingsError(found, source="the plan", next_step=contradictions[0][1])
    if len(lacks) == 1:
        raise PreflightError(lacks[0][0], next_step=lacks[0][1])
    if lacks:
        lines = "".join(f"\n  {line}" for line in found)
        raise PreflightError(f"{len(lacks)} things cannot be had here:{lines}", next_step=lacks[0][1])


def possible_strategies(launch: LaunchSettings, machine: Machine, topology: Topology) -> tuple[Strategy, ...]:
    """What can be chosen from, the cheapest first; one where it is asked for, or where there is nothing to share."""
    several_gpus = len(topology.gpus) > 1 and topology.nodes == 1
    if topology.ranks == 1:
        return ("device-map",) if launch.strategy == "device-map" and several_gpus else ("single",)
    if launch.strategy != "auto":
        return (launch.strategy,)
    absent = () if machine.has_deepspeed else NEED_DEEPSPEED
    possible = (strategy for strategy in CHEAPEST_FIRST if strategy not in absent)
    return tuple(strategy for strategy in possible if strategy != "device-map" or several_gpus)


def choose_strategy(
    settings: RunSettings,
    machine: Machine,
    topology: Topology,
    precision: Precision | None,
    model: ModelFacts | UnknownModel,
) -> StrategyChoice:
    """The strategy asked for, or the cheapest that fits with a margin.

    `settings` hold the global batch of the run. Raises PreflightError where none fits, with figures and a smaller run.
    """
    candidates = possible_strategies(settings.launch, machine, topology)
    if isinstance(model, UnknownModel):
        return StrategyChoice(strategy=candidates[0], memory=None, reason=f"memory unknown: {model.reason}")
    predict = _Predictor(machine, topology, precision, model)
    needs = [predict(settings, strategy) for strategy in candidates]
    too_much: list[str] = []
    for strategy, need in zip(candidates, needs, strict=True):
        if need.fits:
            return StrategyChoice(strategy=strategy, memory=need, reason="; ".join(too_much))
        too_much.append(f"{strategy} needs {need.figures()}")
    smaller = next(_smaller_runs(settings, topology, model, candidates, predict, most_bytes=None), None)
    if settings.launch.strategy != "auto":
        notice = f"predicted not to fit: {too_much[0]}" + (f"; this would: {smaller.flags()}" if smaller else "")
        return StrategyChoice(strategy=candidates[0], memory=needs[0], notices=(notice,))
    raise PreflightError(
        f"out of memory, by prediction: {', '.join(too_much)} (with a tenth kept free)",
        next_step=str(smaller) if smaller else _more_room(topology),
    )


def next_that_fits(
    settings: RunSettings,
    strategy: Strategy,
    topology: Topology,
    memory: MemoryPrediction | None,
    precision: Precision | None,
    machine: Machine,
    model: ModelFacts | UnknownModel,
) -> SmallerRun | None:
    """After running out of memory: the first smaller run predicted to fit and to need a tenth less than this one.

    The arguments are the parts of its LaunchPlan. Smaller batches first, which change nothing but the speed; then shorter
    rows. None where the model is unknown or nothing smaller fits.
    """
    if memory is None or isinstance(model, UnknownModel):
        return None
    predict = _Predictor(machine, topology, precision, model)
    most_bytes = int(ENOUGH_LESS * memory.total)
    return next(_smaller_runs(settings, topology, model, (strategy,), predict, most_bytes), None)


@dataclass(frozen=True, slots=True)
class _Predictor:
    """predict_memory with all but settings and strategy filled in."""

    machine: Machine
    topology: Topology
    precision: Precision | None
    model: ModelFacts

    def __call__(self, settings: RunSettings, strategy: Strategy) -> MemoryPrediction:
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


def _smaller_runs(
    settings: RunSettings,
    topology: Topology,
    model: ModelFacts,
    candidates: Sequence[Strategy],
    predict: _Predictor,
    most_bytes: int | None,
) -> Iterator[SmallerRun]:
    """Smaller runs that fit: smaller micro-batches of the same global batch, then rows of half the length, and so on."""
    training, length = settings.training, row_length(model, settings)
    global_batch = training.global_batch_size or training.batch_size * topology.ranks
    per_rank = global_batch // topology.ranks
    batch_sizes = [size for size in range(training.batch_size - 1, 0, -1) if per_rank % size == 0]
    smallest = batch_sizes[-1] if batch_sizes else training.batch_size
    lengths = [length >> halvings for halvings in range(1, length.bit_length()) if length >> halvings >= SHORTEST_ROWS]
    for batch_size, max_length in [(size, length) for size in batch_sizes] + [(smallest, rows) for rows in lengths]:
        changed = settings.model_copy(
            update={
                "training": training.model_copy(update={"batch_size": batch_size}),
                "data": settings.data.model_copy(update={"max_length": max_length}),
            }
        )
        for strategy in candidates:
            need = predict(changed, strategy)
            if need.fits and (most_bytes is None or need.total <= most_bytes):
                yield SmallerRun(
                    batch_size=batch_size, max_length=max_length, global_batch_size=global_batch, memory=need
                )
                break


def _contradictions(launch: LaunchSettings) -> Iterator[tuple[str, str]]:
    """Settings that cannot be meant together, each with a way out."""
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


def _asks_for_cpu(launch: LaunchSettings) -> bool:
    return launch.gpus == 0 or (launch.gpus == "auto" and launch.cpu_procs != "auto")


def _more_room(topology: Topology) -> str:
    if topology.device == "cpu":
        return "a smaller model, fewer --cpu-procs, or a machine with more memory"
    return "a smaller model, more GPUs, or larger ones"
