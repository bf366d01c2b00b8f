"""The plan of a run: everything decided, with the reason for each choice, before any process starts. Pure."""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lft.core.errors import PreflightError
from lft.core.hardware import Machine
from lft.core.model_facts import ModelFacts, UnknownModel
from lft.core.order import Job, WorkerOrder
from lft.core.precision import choose_precision
from lft.core.rank import CUDA_VISIBLE_DEVICES, MASTER_ADDR, MASTER_PORT, Rank
from lft.core.rows import PreparedFacts
from lft.core.run_dir import Attempt, RunDir
from lft.core.settings import Precision, RunSettings, Strategy
from lft.core.settings_file import to_yaml
from lft.core.words import counted
from lft.plan.accelerate_config import accelerate_yaml
from lft.plan.answering import Answering, plan_answering
from lft.plan.batch import Batch, plan_batch, wanted_global_batch
from lft.plan.conflicts import refuse_conflicts
from lft.plan.deepspeed_config import deepspeed_config
from lft.plan.lines import Choice, plan_lines
from lft.plan.memory import MemoryPrediction
from lft.plan.strategy import choose_strategy, with_checkpointing
from lft.plan.topology import Topology, choose_topology

NOT_LOOKED_AT = UnknownModel()


class LaunchPlan(BaseModel):
    """A run, decided. JSON both ways: `model_dump_json`, `model_validate_json`."""

    model_config = ConfigDict(frozen=True)

    settings: RunSettings
    attempt: int
    resume_from: Path | None = None
    """The checkpoint this attempt goes on from."""
    node: int = 0
    """The node this plan is carried out on; all nodes make the same plan but for this."""
    meeting_point: str | None = None
    """host:port where rank 0 listens; with port 0, or None on one node, it takes a free one and tells it through a file."""
    shares_folder: bool = False
    """Whether all of several nodes see the run's folder, as those of a SLURM job do."""
    strategy: Strategy
    gradient_checkpointing: bool = False
    """Whether each layer's activations are computed again in the backward pass."""
    memory: MemoryPrediction | None = None
    """What each device is predicted to need; None where nothing is known about the model."""
    topology: Topology
    answering: Answering | None = None
    """The ranks of the benchmark; None: those that train."""
    adapter: Path | None = None
    """Folder of an adapter that is only benchmarked, where it is not in output_dir."""
    batch: Batch
    precision: Precision | None
    """None: the worker decides, on a GPU by the checkpoint, on a CPU by measuring."""
    choices: tuple[Choice, ...]
    notices: tuple[str, ...]

    @property
    def run_dir(self) -> RunDir:
        """Where the run is."""
        return RunDir(self.settings.output_dir)

    @property
    def attempt_dir(self) -> Attempt:
        """Where this attempt is."""
        return Attempt(self.run_dir.run / f"attempt-{self.attempt}")

    @property
    def local_ranks(self) -> range:
        """The ranks of this node that train."""
        return self.ranks_here("train")

    def ranks_here(self, job: Job) -> range:
        """The ranks of this node that do a job."""
        local = self.ranks_per_node(job)
        return range(self.node * local, (self.node + 1) * local)

    def ranks_per_node(self, job: Job) -> int:
        """How many ranks of each node do a job."""
        return self.answering.ranks_per_node if self.answering and job == "benchmark" else self.topology.ranks_per_node

    def world_size(self, job: Job) -> int:
        """How many ranks do a job: node 0 benchmarks alone where the nodes may share no folder."""
        return self.ranks_per_node(job) * (self.topology.nodes if job == "train" or self.shares_folder else 1)

    def order(self, job: Job, precision: Precision | None = None) -> WorkerOrder:
        """The order of all ranks for a job; `precision` where an earlier job has settled it."""
        strategy = self.strategy
        if job == "benchmark" and strategy != "device-map":  # each rank answers for itself
            strategy = "single"
        if job == "benchmark" and self.answering:
            strategy = self.answering.strategy
        return WorkerOrder(
            job=job,
            attempt_dir=self.attempt_dir.folder,
            settings=with_checkpointing(self.settings, self.gradient_checkpointing),
            strategy=strategy,
            world_size=self.world_size(job),
            device=self.topology.device,
            precision=precision or self.precision,
            accumulation=self.batch.accumulation,
            deepspeed=self.deepspeed(precision or self.precision) if job == "train" else None,
            resume_from=self.resume_from,
            adapter=self.adapter,
        )

    def deepspeed(self, precision: Precision | None) -> dict[str, Any] | None:
        """The content of deepspeed.json; None where the strategy has none."""
        if self.strategy not in ("zero2", "zero3"):
            return None
        return deepspeed_config(self.strategy, self.batch, precision, self.settings.training.max_grad_norm)

    def argv(self, job: Job) -> list[str]:
        """The command of every rank."""
        return [sys.executable, "-m", "lft.train.worker", str(self.attempt_dir.order(job))]

    def environment(self, rank: int, job: Job = "train") -> dict[str, str]:
        """What one rank's environment has beyond the launcher's own."""
        world, local = self.world_size(job), self.ranks_per_node(job)
        this = Rank(rank=rank, local_rank=rank % local, world_size=world, local_world_size=local)
        # accelerate takes a RANK, even that of the only one, for a process group to be joined
        variables = this.to_environment() if world > 1 else {}
        if self.meeting_point and world > local:
            variables[MASTER_ADDR], _, variables[MASTER_PORT] = self.meeting_point.rpartition(":")
        threads = self.topology.threads_per_rank
        if self.answering and job == "benchmark":
            threads = self.answering.threads_per_rank
        variables["OMP_NUM_THREADS"] = str(threads)
        if self.topology.device == "cpu":
            variables[CUDA_VISIBLE_DEVICES] = ""
        else:
            variables[CUDA_VISIBLE_DEVICES] = ",".join(self.topology.gpus)
        return variables

    def files(self) -> dict[str, str]:
        """Path below output_dir -> text of what is written before the ranks start."""
        run = self.run_dir
        attempt = self.attempt_dir
        deepspeed = self.deepspeed(self.precision)
        texts = {
            run.settings: to_yaml(self.settings),
            run.plan: self.model_dump_json(indent=1),
            attempt.plan: self.model_dump_json(indent=1),
            run.accelerate_config: accelerate_yaml(self.strategy, self.topology, self.precision, run.deepspeed_config),
            attempt.order("train"): self.order("train").model_dump_json(indent=1),
        }
        if deepspeed is not None:
            texts[run.deepspeed_config] = json.dumps(deepspeed, indent=1) + "\n"
        return {str(path.relative_to(run.output_dir)): text for path, text in texts.items()}


def make_plan(
    settings: RunSettings,
    machine: Machine,
    model: ModelFacts | UnknownModel = NOT_LOOKED_AT,
    attempt: int = 0,
    rows: int | PreparedFacts | None = None,
) -> LaunchPlan:
    """Decide everything about a run; `rows` is what is known of the data, or about how many there are.

    Raises SettingsError or PreflightError for what cannot work.
    """
    refuse_conflicts(settings, machine)
    _refuse_unfit_model(settings, model)
    topology = choose_topology(settings.launch, machine)
    batch, batch_reason = plan_batch(settings.training, topology.ranks, topology.asked_ranks)
    precision, precision_reason = plan_precision(settings, machine, topology)
    strategy = choose_strategy(_with_batch(settings, batch), machine, topology, precision, model)
    if strategy.strategy == "device-map" and topology.ranks > 1:
        topology = topology.model_copy(update={"ranks_per_node": 1, "threads_per_rank": machine.cpu_cores})
        batch, batch_reason = plan_batch(settings.training, topology.ranks, topology.asked_ranks)
    answering = plan_answering(settings, machine, topology, strategy.strategy, precision, model)
    notices = topology.notices
    if notices:
        wanted, made = wanted_global_batch(settings.training, topology.asked_ranks), batch.global_batch
        change = f"stays {made}" if made == wanted else f"grows from {wanted} to {made}"
        notices = (f"{notices[0]}; the global batch {change} (accumulation {batch.accumulation})",)
    choices = plan_lines(
        settings, machine, topology, model, strategy, (batch, batch_reason), (precision, precision_reason), rows
    )
    told = () if not answering.notice or not settings.has_benchmark else (answering.notice,)
    return LaunchPlan(
        settings=_with_batch(settings, batch),
        attempt=attempt,
        strategy=strategy.strategy,
        gradient_checkpointing=strategy.gradient_checkpointing,
        memory=strategy.memory,
        topology=topology,
        answering=answering,
        batch=batch,
        precision=precision,
        choices=choices + _answered(settings, topology, answering),
        notices=notices + strategy.notices + told,
    )


def _answered(settings: RunSettings, topology: Topology, answering: Answering) -> tuple[Choice, ...]:
    """The line of the benchmark's ranks, where they are not those that train."""
    if not settings.has_benchmark or answering.ranks_per_node == topology.ranks_per_node:
        return ()
    a_node = " a node" if topology.nodes > 1 else ""
    value = f"{counted(answering.ranks_per_node, 'rank')}{a_node}, after training"
    return (Choice(name="benchmark", value=value, reason=answering.reason),)


def _refuse_unfit_model(settings: RunSettings, model: ModelFacts | UnknownModel) -> None:
    """Raise PreflightError for layers the model lacks; code that comes with a model may make what its files do not show."""
    if isinstance(model, UnknownModel) or settings.model.trust_remote_code:
        return
    error = model.refused_layers(settings.lora)
    if error:
        raise error
    if settings.model.quantization != "none" and model.checkpoint_type == "quantized":
        raise PreflightError(
            f"{settings.model.name} is a quantized checkpoint, and model.quantization asks for {settings.model.quantization}",
            next_step="name the model it was made from, or leave model.quantization out",
        )


def _with_batch(settings: RunSettings, batch: Batch) -> RunSettings:
    """The settings with their global batch frozen, so that fewer or more ranks go on with the same steps."""
    training = settings.training.model_copy(update={"global_batch_size": batch.global_batch})
    return settings.model_copy(update={"training": training})


def plan_precision(settings: RunSettings, machine: Machine, topology: Topology) -> tuple[Precision | None, str]:
    """The precision and why; None where only the checkpoint, which the worker reads, can tell."""
    asked = None if settings.launch.precision == "auto" else settings.launch.precision
    if asked is None and topology.device == "cuda":
        return None, "bf16 if the checkpoint is bf16 and the GPUs compute it, else fp16"
    if asked is None and machine.cpu_computes_bf16:
        return None, "this CPU knows bf16: the ranks measure whether it is faster here than float32"
    computes = machine.cpu_computes_bf16
    if topology.device == "cuda":
        computes = all(gpu.computes_bf16 for gpu in machine.gpus if gpu.token in topology.gpus)
    return choose_precision(asked, topology.device, checkpoint_is_bf16=False, device_computes_bf16=computes)
