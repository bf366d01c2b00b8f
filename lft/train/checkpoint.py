"""What a checkpoint holds: all a run needs to go on exactly, whole, whatever the strategy and the number of ranks.

    adapter_config.json  adapter_model.safetensors    the adapter, as peft loads it; its float32 weights are the masters
    optimizer.safetensors                             KEY/PARAMETER, such as exp_avg/base_model....lora_A.default.weight
    ranks.safetensors                                 RANK/NAME: each rank's random generators and its part of the mean loss
    state.json                                        steps, learning-rate schedule, loss scale, losses so far
    manifest.json                                     the digest of each file; written last (core/checkpoints.py)

A checkpoint is taken between two steps, so there is no accumulation under way, and the cursor in the data follows from the
number of steps (train/sampling.py).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file

from lft.core.checkpoints import FileDigest, Manifest
from lft.core.files import write_text
from lft.train.adapter import AdapterFiles, Weights, write_adapter
from lft.train.optimizer_state import OptimizerState
from lft.train.random_state import RandomState

OPTIMIZER = "optimizer.safetensors"
RANKS = "ranks.safetensors"
STATE = "state.json"


class TrainingState(BaseModel):
    """The numbers of the training loop."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    schedule_steps: int
    """Of the learning-rate schedule, which does not count steps that the loss scale made skip."""
    last_logged: int
    """The step of the newest entry of `log_history`; each rank's loss since then is its `loss`."""
    log_history: list[dict[str, Any]]
    loss_scale: dict[str, Any] | None = None
    """The state of the GradScaler, or of DeepSpeed's loss scaler, in fp16."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A run between two steps, whole, on the CPU: what rank 0 writes."""

    adapter: AdapterFiles
    optimizer: OptimizerState
    ranks: list[RandomState]
    """Of each rank, its random generators and `loss`."""
    state: TrainingState
    facts: dict[str, Any]
    """The manifest's, without the files."""


def write_snapshot(snapshot: Snapshot, folder: Path) -> None:
    """Write it into an empty folder, the manifest last. Raises OSError, or AdapterError for weights that are not finite."""
    write_adapter(snapshot.adapter, folder)
    save_file(_joined(snapshot.optimizer, inner_first=True), folder / OPTIMIZER)
    save_file(_joined({str(rank): state for rank, state in enumerate(snapshot.ranks)}), folder / RANKS)
    write_text(folder / STATE, snapshot.state.model_dump_json(indent=1) + "\n")
    files = {path.name: FileDigest.of(path) for path in sorted(folder.iterdir())}
    Manifest(**snapshot.facts, files=files).save(folder)


def read_state(checkpoint: Path) -> TrainingState:
    """The numbers of the training loop. Raises OSError or pydantic.ValidationError."""
    return TrainingState.model_validate_json((checkpoint / STATE).read_bytes())


def read_optimizer(checkpoint: Path) -> OptimizerState:
    """The optimizer's state by the names of the parameters."""
    state: OptimizerState = {}
    for name, tensor in load_file(checkpoint / OPTIMIZER).items():
        key, _, parameter = name.partition("/")
        state.setdefault(parameter, {})[key] = tensor
    return state


def read_ranks(checkpoint: Path) -> list[RandomState]:
    """The random generators and the part of the mean loss of each rank that took part."""
    ranks: dict[int, RandomState] = {}
    for name, tensor in load_file(checkpoint / RANKS).items():
        rank, _, key = name.partition("/")
        ranks.setdefault(int(rank), {})[key] = tensor
    return [ranks[rank] for rank in range(len(ranks))]


def _joined(tensors: dict[str, Weights], *, inner_first: bool = False) -> dict[str, torch.Tensor]:
    return {
        f"{key}/{name}" if inner_first else f"{name}/{key}": tensor.contiguous()
        for name, inner in tensors.items()
        for key, tensor in inner.items()
    }
