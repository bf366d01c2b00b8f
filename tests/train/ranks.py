"""Real ranks for tests: orders, and worker processes started as lft or another launcher starts them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lft.core.order import WorkerOrder, WorkerReport
from lft.core.rank import Rank, clean_environment
from lft.core.run_dir import Attempt
from lft.core.settings import RunSettings, Strategy

MICRO_BATCH = 4
GLOBAL_BATCH = 16


def zero_config(
    stage: int, ranks: int = 2, clip: float = 1.0, micro_batch: int = MICRO_BATCH, global_batch: int = GLOBAL_BATCH
) -> dict[str, Any]:
    """A DeepSpeed configuration with final numbers."""
    return {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": global_batch // micro_batch // ranks,
        "train_batch_size": global_batch,
        "gradient_clipping": clip,
        "zero_optimization": {"stage": stage, "overlap_comm": False, "contiguous_gradients": True},
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        "zero_allow_untested_optimizer": True,
    }


def make_order(
    model: Path, data: Path, output_dir: Path, strategy: Strategy, ranks: int, **changes: Any
) -> WorkerOrder:
    """Eight steps (two epochs of 57 rows) without dropout; `changes` are training settings or fields of the order."""
    training = {"num_epochs": 2, "batch_size": MICRO_BATCH, "learning_rate": 1e-3, "log_every": 1, "save_every": 3}
    fields = {
        name: changes.pop(name) for name in ("precision", "resume_from", "deepspeed", "launch") if name in changes
    }
    global_batch = changes.pop("global_batch", GLOBAL_BATCH)
    lora = {"lora_dropout": changes.pop("lora_dropout", 0.0), "r": 4} | changes.pop("lora", {})
    settings = RunSettings.model_validate(
        {
            "model": {"name": str(model), "quantization": changes.pop("quantization", "none")},
            "data": {"source": str(data), "max_length": 96, "held_out": 3},
            "lora": lora,
            "training": training | changes,
            "launch": fields.pop("launch", {}),
            "output_dir": str(output_dir),
        }
    )
    micro_batch = settings.training.batch_size
    stage = {"zero2": 2, "zero3": 3}.get(strategy)
    attempt = Attempt(output_dir / "run" / f"attempt-{len(list(output_dir.glob('run/attempt-*')))}")
    order = WorkerOrder(
        job="train",
        attempt_dir=attempt.folder,
        settings=settings,
        strategy=strategy,
        world_size=ranks,
        device="cpu",
        precision=fields.get("precision", "fp32"),
        accumulation=global_batch // micro_batch // ranks,
        deepspeed=fields.get("deepspeed")
        or (zero_config(stage, ranks, settings.training.max_grad_norm, micro_batch, global_batch) if stage else None),
        resume_from=fields.get("resume_from"),
    )
    order.save(attempt.order("train"))
    return order


def start_rank(order: WorkerOrder, rank: int, **variables: str) -> subprocess.Popen[bytes]:
    """One rank of an order, as lft starts it; what it prints goes to its log."""
    attempt = Attempt(order.attempt_dir)
    world = order.world_size
    this = Rank(rank=rank, local_rank=rank, world_size=world, local_world_size=world)
    own = this.to_environment() if world > 1 else {}
    with attempt.log(rank).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "lft.train.worker", str(attempt.order("train"))],
            env=clean_environment() | own | variables,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def run_ranks(order: WorkerOrder, timeout_seconds: float = 300) -> list[int]:
    """All ranks of an order; returns their exit codes. None outlives this call."""
    processes = [start_rank(order, rank) for rank in range(order.world_size)]
    try:
        return [process.wait(timeout_seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()


def trained(order: WorkerOrder) -> WorkerOrder:
    """The order, carried out by real ranks."""
    assert set(run_ranks(order)) == {0}, logs(order)
    return order


def logs(order: WorkerOrder) -> str:
    """What the ranks printed, for the message of a failed assertion."""
    return "\n".join(path.read_text(errors="replace")[-4000:] for path in sorted(order.attempt_dir.glob("rank-*.log")))


def metrics(order: WorkerOrder) -> dict[str, Any]:
    """What rank 0 measured."""
    return WorkerReport.load(Attempt(order.attempt_dir).report("train", 0)).metrics


def losses(order: WorkerOrder) -> list[float]:
    """The loss of every step."""
    return [entry["loss"] for entry in metrics(order)["losses"]]


def adapter(order: WorkerOrder) -> dict[str, torch.Tensor]:
    """The final adapter's weights."""
    return load_file(order.settings.output_dir / "adapter_model.safetensors")


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of two adapters with the same names and shapes."""
    assert {name: tensor.shape for name, tensor in one.items()} == {
        name: tensor.shape for name, tensor in other.items()
    }
    return max(float((one[name] - other[name]).abs().max()) for name in one)
