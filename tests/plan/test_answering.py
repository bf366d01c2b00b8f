"""The ranks of the benchmark: as many as hold the whole model, whatever strategy has trained it."""

from typing import Any

import pytest

from lft.core.hardware import Machine
from lft.core.model_facts import ModelFacts, UnknownModel
from lft.core.rank import CUDA_VISIBLE_DEVICES, Rank
from lft.plan.answering import plan_benchmark, predict_answering
from lft.plan.launch_plan import LaunchPlan, make_plan
from tests.plan.test_memory import llama_8b
from tests.plan.test_plan import settings
from tests.plan.test_strategy import cluster, line, plan


def layout(of: LaunchPlan) -> tuple[str, int, int]:
    """Strategy and ranks of a node, and all ranks, as the order says them."""
    order = of.order("benchmark")
    return order.strategy, of.ranks_per_node("benchmark"), order.world_size


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3", "fsdp", "device-map"])
def test_a_model_that_fits_one_gpu_answers_on_each_whatever_has_trained_it(strategy: str) -> None:
    found = plan(cluster(4, 80), launch={"strategy": strategy})
    assert found.strategy == strategy
    assert layout(found) == ("single", 4, 4)
    assert found.order("benchmark").deepspeed is None
    told = [choice.name for choice in found.choices]
    assert ("benchmark" in told) == (strategy == "device-map"), "only where it is not the ranks that train"


def test_a_quantized_base_answers_in_the_memory_its_weights_then_take() -> None:
    """Of 16 GB of weights the 14.0 GB of linear layers shrink to 0.516 bytes a weight: 3.6 GB, and 2.1 of both ends."""
    machine = cluster(4, 16).model_copy(update={"has_bitsandbytes": True})
    assert layout(plan(machine, launch={"strategy": "device-map"}))[0] == "device-map"
    quantized = settings(model={"name": "a/b", "quantization": "4bit"}, launch={"strategy": "ddp"})
    assert layout(make_plan(quantized, machine, llama_8b())) == ("single", 4, 4)
    need = predict_answering(llama_8b(), quantized, "bf16", "cuda")
    assert need.weights == pytest.approx(5.7e9, rel=0.02)


@pytest.mark.parametrize("strategy", ["zero3", "fsdp"])
def test_a_model_that_fits_no_gpu_answers_once_a_node_over_all_of_them(strategy: str) -> None:
    found = plan(cluster(4, 16), launch={"strategy": strategy})
    assert found.order("train").world_size == 4
    assert layout(found) == ("device-map", 1, 1)
    assert list(found.ranks_here("benchmark")) == [0]
    environment = found.environment(0, "benchmark")
    assert Rank.from_environment(environment).world_size == 1
    assert environment[CUDA_VISIBLE_DEVICES] == "0,1,2,3"
    assert environment["OMP_NUM_THREADS"] == "32"
    assert "the whole model on each needs" in line(found, "benchmark")
    assert "1 rank, after training" in line(found, "benchmark")


def test_nodes_that_share_a_folder_each_have_their_own_such_rank() -> None:
    found = plan(cluster(4, 16), launch={"nodes": 2, "strategy": "fsdp"})
    shared = found.model_copy(update={"shares_folder": True, "meeting_point": "a:0", "node": 1})
    assert shared.order("train").world_size == 8
    assert layout(shared) == ("device-map", 1, 2)
    assert list(shared.ranks_here("benchmark")) == [1]
    assert Rank.from_environment(shared.environment(1, "benchmark")) == Rank(
        rank=1, local_rank=0, world_size=2, local_world_size=1
    )
    assert list(shared.local_ranks) == [4, 5, 6, 7]


@pytest.mark.parametrize(("strategy", "expected"), [("ddp", "single"), ("zero3", "device-map"), ("fsdp", "device-map")])
def test_of_an_unknown_model_the_strategy_that_was_asked_for_tells(strategy: str, expected: str) -> None:
    found = plan(cluster(4, 80), UnknownModel(reason="nobody looked"), launch={"strategy": strategy})
    assert layout(found)[0] == expected


def test_ranks_on_a_cpu_are_fewer_where_the_memory_holds_fewer_models() -> None:
    roomy, narrow = cluster(0, 0), cluster(0, 0, memory=60 * 10**9)
    values: dict[str, Any] = {"launch": {"cpu_procs": 4, "strategy": "fsdp"}}
    assert layout(plan(roomy, **values)) == ("single", 4, 4)
    found = plan(narrow, **values)
    assert layout(found) == ("single", 1, 1)
    assert found.environment(0, "benchmark")["OMP_NUM_THREADS"] == "32"


def test_what_is_predicted_not_to_fit_anywhere_is_said_and_not_refused() -> None:
    found = plan(
        cluster(2, 8), launch={"strategy": "zero3"}, training={"batch_size": 1, "gradient_checkpointing": True}
    )
    notice = next(notice for notice in found.notices if "benchmark" in notice)
    assert "--set benchmark.batch_size makes it smaller" in notice
    without = plan(cluster(2, 8), launch={"strategy": "zero3"}, benchmark={"num_prompts": 0})
    assert not any("benchmark" in notice for notice in without.notices)


def test_the_prediction_grows_with_what_is_answered_at_a_time_and_shrinks_over_several_gpus() -> None:
    def need(devices: int = 1, **benchmark: int) -> float:
        asked = settings(data={"source": "a/b", "max_length": 1024}, benchmark=benchmark)
        return predict_answering(llama_8b(), asked, "bf16", "cuda", devices=devices).total / 1e9

    assert 16.1 < need(batch_size=1, max_new_tokens=1) < 19
    # 8 heads x 128 x 2 x 32 layers x 2 bytes a token
    per_token = (need(batch_size=1, max_new_tokens=2001) - need(batch_size=1, max_new_tokens=1)) / 2000
    assert per_token * 1e9 == pytest.approx(131_072)
    assert need(batch_size=64) > need(batch_size=32) + 1024 * 32 * 131_072 / 1e9
    assert need(devices=4) < need() / 2


def test_a_benchmark_alone_uses_what_is_here_not_what_has_trained() -> None:
    asked = settings(launch={"gpus": 8, "nodes": 4, "strategy": "fsdp", "strict": True})
    facts: ModelFacts = llama_8b()
    machines: list[tuple[Machine, tuple[str, str, int]]] = [
        (cluster(2, 80), ("cuda", "single", 2)),
        (cluster(2, 16), ("cuda", "device-map", 1)),
        (cluster(0, 0), ("cpu", "single", 2)),
    ]
    for machine, expected in machines:
        topology, answering = plan_benchmark(asked, machine, "fsdp", "bf16", facts)
        assert (topology.device, answering.strategy, answering.ranks_per_node) == expected
        assert topology.nodes == 1
