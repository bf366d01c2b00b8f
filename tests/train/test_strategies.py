"""Every strategy with real ranks: the same losses and the same adapter as one rank, and the same again after a resume."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lft.core.checkpoints import complete
from lft.core.order import WorkerOrder
from lft.core.settings import Strategy
from tests.conftest import TinyModels
from tests.train.ranks import adapter, difference, logs, losses, make_order, metrics, trained

WRAPPERS: dict[Strategy, str] = {
    "single": "PeftModelForCausalLM",
    "ddp": "DistributedDataParallel",
    "zero2": "DeepSpeedEngine",
    "zero3": "DeepSpeedEngine",
    "fsdp": "FSDPPeftModelForCausalLM",
}
SEVERAL: tuple[Strategy, ...] = ("ddp", "zero2", "zero3", "fsdp")
Run = Callable[[Strategy], WorkerOrder]


@pytest.fixture(scope="module")
def run(tiny_models: TinyModels, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An uninterrupted run of a strategy; each is trained once."""
    done: dict[Strategy, WorkerOrder] = {}

    def once(strategy: Strategy) -> WorkerOrder:
        if strategy not in done:
            ranks = 1 if strategy == "single" else 2
            output_dir = tmp_path_factory.mktemp(strategy)
            done[strategy] = trained(make_order(tiny_models.llama, rows, output_dir, strategy, ranks))
        return done[strategy]

    return once


@pytest.mark.parametrize("strategy", SEVERAL)
def test_a_strategy_is_real_and_gives_the_losses_and_the_adapter_of_one_rank(run: Run, strategy: Strategy) -> None:
    alone, shared = run("single"), run(strategy)
    assert metrics(alone)["wrapper"] == WRAPPERS["single"]
    assert (metrics(shared)["strategy"], metrics(shared)["wrapper"]) == (strategy, WRAPPERS[strategy])
    assert losses(shared) == pytest.approx(losses(alone), abs=1e-5)
    assert len(losses(shared)) == 8
    weights = adapter(shared)
    assert difference(weights, adapter(alone)) < 1e-5
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert max(float(tensor.abs().max()) for name, tensor in weights.items() if "lora_B" in name) > 1e-3


def test_four_ranks_without_accumulation_train_as_one_rank_with_it(
    run: Run, tiny_models: TinyModels, rows: Path, tmp_path: Path
) -> None:
    alone, shared = run("single"), trained(make_order(tiny_models.llama, rows, tmp_path, "ddp", 4))
    assert (alone.accumulation, shared.accumulation) == (4, 1)
    assert losses(shared) == pytest.approx(losses(alone), abs=1e-5)
    assert difference(adapter(shared), adapter(alone)) < 1e-5


@pytest.mark.parametrize("strategy", SEVERAL)
def test_gradient_checkpointing_changes_neither_losses_nor_adapter(
    run: Run, strategy: Strategy, tiny_models: TinyModels, rows: Path, tmp_path: Path
) -> None:
    order = trained(make_order(tiny_models.llama, rows, tmp_path, strategy, 2, gradient_checkpointing=True))
    assert losses(order) == pytest.approx(losses(run(strategy)), abs=1e-6)
    assert difference(adapter(order), adapter(run(strategy))) < 1e-6
    assert "Caching is incompatible" not in logs(order)


@pytest.mark.parametrize(
    "strategy",
    ["ddp", "zero3", pytest.param("zero2", marks=pytest.mark.long), pytest.param("fsdp", marks=pytest.mark.long)],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    run: Run, strategy: Strategy, tiny_models: TinyModels, rows: Path, tmp_path: Path
) -> None:
    whole = run(strategy)
    assert [path.name for path in complete(whole.settings.output_dir)] == [
        "checkpoint-3",
        "checkpoint-6",
        "checkpoint-8",
    ]
    checkpoint = tmp_path / "checkpoint-3"  # in the middle of the first of two epochs
    shutil.copytree(whole.settings.output_dir / "checkpoint-3", checkpoint)
    order = trained(make_order(tiny_models.llama, rows, tmp_path / "out", strategy, 2, resume_from=checkpoint))
    assert difference(adapter(order), adapter(whole)) == 0.0
    assert losses(order) == losses(whole)
    measured = metrics(order)
    assert (measured["first_step"], measured["steps"]) == (3, 8)


@pytest.mark.parametrize(
    "strategy",
    ["zero2", "fsdp", pytest.param("ddp", marks=pytest.mark.long), pytest.param("zero3", marks=pytest.mark.long)],
)
def test_a_run_whose_steps_are_all_done_resumes_without_one_more_and_saves_the_checkpoints_adapter(
    run: Run, strategy: Strategy, tiny_models: TinyModels, rows: Path, tmp_path: Path
) -> None:
    checkpoint = run(strategy).settings.output_dir / "checkpoint-6"  # in the middle of the second epoch
    changes: dict[str, Any] = {"resume_from": checkpoint, "max_steps": 6}
    order = trained(make_order(tiny_models.llama, rows, tmp_path / "out", strategy, 2, **changes))
    assert difference(adapter(order), load_file(checkpoint / "adapter_model.safetensors")) == 0.0
    assert complete(order.settings.output_dir) == []
    measured = metrics(order)
    assert (measured["first_step"], measured["steps"], measured["tokens_per_second"]) == (6, 6, None)
    assert losses(order) == losses(run(strategy))[:6]


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp"])
def test_a_bf16_base_trains_adapters_in_float32(
    strategy: Strategy, tiny_models: TinyModels, rows: Path, tmp_path: Path
) -> None:
    weights = []
    runs: list[tuple[Strategy, int]] = [("single", 1), (strategy, 2)]
    for name, ranks in runs:
        changes: dict[str, Any] = {"precision": "bf16", "learning_rate": 1e-5}
        weights.append(adapter(trained(make_order(tiny_models.llama, rows, tmp_path / name, name, ranks, **changes))))
    alone, shared = weights
    for tensor in (tensor for tensor in shared if "lora_A" in tensor):
        assert shared[tensor].dtype == torch.float32
        # a step of 1e-5 is far below what bf16 can tell apart at 0.05, which is 2e-4
        assert float((shared[tensor].bfloat16().float() == shared[tensor]).float().mean()) < 0.01
        assert float((shared[tensor] - alone[tensor]).abs().mean()) < 5e-6
