"""The strategy: the cheapest that fits, with its reason; refusals with their ways out; the next run after running out."""

from typing import Any

import pytest

from lft.core.errors import PreflightError, SettingsError
from lft.core.hardware import Gpu, Machine
from lft.core.model_facts import ModelFacts, UnknownModel
from lft.plan.launch_plan import LaunchPlan, make_plan
from lft.plan.memory import predict_memory
from lft.plan.strategy import next_that_fits
from tests.plan.test_memory import llama_8b
from tests.plan.test_plan import settings

ROWS = {"source": "a/b", "max_length": 1024}


def cluster(gpus: int, gigabytes: float, *, deepspeed: bool = True, memory: int = 512 * 10**9) -> Machine:
    """A machine with GPUs of this many GB."""
    cards = tuple(
        Gpu(token=str(index), name="NVIDIA L40S", memory_bytes=int(gigabytes * 1e9), computes_bf16=True)
        for index in range(gpus)
    )
    return Machine(gpus=cards, cpu_cores=32, memory_bytes=memory, cpu_computes_bf16=False, has_deepspeed=deepspeed)


def plan(on: Machine, model: ModelFacts | UnknownModel | None = None, **sections: Any) -> LaunchPlan:
    """The plan of Llama-3.1-8B, one row of 1,024 tokens at a time where nothing else is said."""
    start: dict[str, Any] = {"data": ROWS, "training": {"batch_size": 1}}
    return make_plan(settings(**(start | sections)), on, model or llama_8b())


def line(of: LaunchPlan, name: str) -> str:
    """A line of the plan and its reason."""
    return next(f"{choice.value} {choice.reason}" for choice in of.choices if choice.name == name)


def test_ddp_is_taken_where_it_fits_and_the_plan_shows_its_memory() -> None:
    found = plan(cluster(4, 80))
    assert (found.strategy, found.topology.ranks) == ("ddp", 4)
    assert found.memory is not None
    assert found.memory.describe() in line(found, "strategy")
    assert "needs" not in line(found, "strategy")
    assert "6.82 M of 8.03 B trained" in line(found, "adapter")


def test_a_model_that_ddp_cannot_hold_is_sharded_and_the_reason_has_the_figures() -> None:
    found = plan(cluster(4, 24))
    assert found.strategy == "fsdp"
    assert found.memory is not None
    assert found.memory.fits
    words = line(found, "strategy")
    for cheaper in ("ddp", "zero2"):
        assert f"{cheaper} needs " in words
    assert words.count("of 24.0 GB per GPU") == 3


def test_what_is_trained_alone_may_be_sharded() -> None:
    wide = {"r": 1024, "target_modules": "all-linear"}
    asked = settings(data=ROWS, training={"batch_size": 1}, lora=wide)
    ddp = predict_memory(llama_8b(), asked, "ddp", devices=8, precision="bf16", device="cuda")
    assert plan(cluster(8, ddp.total / 1e9), lora=wide).strategy == "zero2"
    assert plan(cluster(8, ddp.total / 1e9, deepspeed=False), lora=wide).strategy == "fsdp"


def test_layers_are_laid_over_the_gpus_only_where_nothing_else_fits_and_the_global_batch_stays() -> None:
    model = llama_8b().model_copy(update={"layers": 2})  # gathering two of two layers gathers all
    found = plan(cluster(4, 18), model)
    assert (found.strategy, found.topology.ranks, found.topology.gpus) == ("device-map", 1, ("0", "1", "2", "3"))
    assert found.batch.global_batch == plan(cluster(4, 80), model).batch.global_batch
    assert plan(cluster(4, 80), model).strategy == "ddp"


def test_where_nothing_fits_the_figures_and_a_run_that_would_are_said() -> None:
    with pytest.raises(PreflightError) as caught:
        plan(cluster(4, 24), training={"batch_size": 32, "global_batch_size": 128})
    assert "ddp needs" in str(caught.value)
    assert "fsdp needs" in str(caught.value)
    flags = dict(flag.split("=") for flag in caught.value.next_step.split() if "=" in flag)
    smaller = plan(
        cluster(4, 24),
        training={"batch_size": int(flags["training.batch_size"]), "global_batch_size": 128},
        data={"source": "a/b", "max_length": int(flags["data.max_length"])},
    )
    assert smaller.memory is not None
    assert smaller.memory.fits
    assert smaller.batch.global_batch == 128
    assert f"predicted {smaller.memory.figures()}" in caught.value.next_step


def test_where_nothing_at_all_would_fit_more_room_is_the_way_out() -> None:
    with pytest.raises(PreflightError) as caught:
        plan(cluster(1, 4))
    assert "single needs" in str(caught.value)
    assert "larger ones" in caught.value.next_step


def test_the_ranks_of_a_cpu_share_its_memory() -> None:
    assert plan(cluster(0, 0, memory=120 * 10**9), launch={"cpu_procs": 1}).strategy == "single"
    with pytest.raises(PreflightError, match=r"ddp needs .* of 15.0 GB per rank"):
        plan(cluster(0, 0, memory=120 * 10**9), launch={"cpu_procs": 8})


def test_a_strategy_that_is_asked_for_is_taken_with_a_warning_where_it_will_not_fit() -> None:
    found = plan(cluster(4, 16), launch={"strategy": "ddp"})
    assert found.strategy == "ddp"
    assert any("predicted not to fit: ddp needs" in notice for notice in found.notices)
    assert plan(cluster(4, 80), launch={"strategy": "zero3"}).notices == ()


def test_an_unknown_model_is_planned_as_ddp_and_the_reason_says_why_its_memory_is_unknown() -> None:
    found = plan(cluster(4, 1), UnknownModel(reason="the Hub did not answer"))
    assert (found.strategy, found.memory) == ("ddp", None)
    assert "memory unknown: the Hub did not answer" in line(found, "strategy")
    assert plan(cluster(1, 1), UnknownModel()).strategy == "single"


def test_a_gpu_of_unknown_size_is_taken_as_it_is() -> None:
    assert plan(cluster(4, 0)).strategy == "ddp"


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        ({"strategy": "single", "nodes": 2}, ["single is one rank"]),
        ({"strategy": "device-map", "nodes": 2, "gpus": 0}, ["device-map is one rank", "the CPU is asked for"]),
        ({"strategy": "device-map", "cpu_procs": 2}, ["the CPU is asked for"]),
        ({"strategy": "device-map", "gpus": 1}, ["one is asked for"]),
        *(({"strategy": name, "gpus": 1}, [f"{name} shares work"]) for name in ("ddp", "zero2", "zero3", "fsdp")),
        ({"strategy": "fsdp", "gpus": 0, "cpu_procs": 1}, ["fsdp shares work"]),
        ({"strategy": "zero2", "gpus": 1, "precision": "fp16"}, ["zero2 shares work", "fp16 on a CPU", "deepspeed"]),
    ],
)
def test_settings_that_cannot_be_meant_together_are_refused_all_at_once(
    launch: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        plan(cluster(0, 0, deepspeed=False), launch=launch)
    assert all(any(word in mistake for mistake in caught.value.mistakes) for word in words)
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("launch", "words"),
    [
        ({"strategy": "zero3", "gpus": 4}, ["deepspeed"]),
        ({"strategy": "device-map"}, ["none can be used here"]),
        ({"strategy": "device-map", "precision": "fp16"}, ["none can be used here", "fp16 on a CPU"]),
    ],
)
def test_what_the_machine_lacks_is_said_all_at_once(launch: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(PreflightError) as caught:
        plan(cluster(0, 0, deepspeed=False), launch=launch)
    assert all(word in str(caught.value) for word in words)
    assert caught.value.next_step


def test_fewer_gpus_than_asked_for_make_a_smaller_run_of_one_rank_and_no_refusal() -> None:
    found = plan(cluster(1, 80), launch={"strategy": "zero2", "gpus": 4})
    assert found.strategy == "single"
    assert "4 GPUs asked for, 1 here" in found.notices[0]


def test_after_running_out_of_memory_the_next_run_is_smaller_and_computes_the_same_steps() -> None:
    on = cluster(4, 80)
    failed = plan(on, training={"batch_size": 8, "global_batch_size": 64})
    assert failed.memory is not None
    following = next_that_fits(
        failed.settings, failed.strategy, failed.topology, failed.memory, failed.precision, on, llama_8b()
    )
    assert following is not None
    assert following.memory.total <= 0.9 * failed.memory.total
    assert following.global_batch_size == 64
    assert 64 % (following.batch_size * 4) == 0
    assert following.batch_size == 4
    assert following.max_length == 1024
    assert str(following).startswith("--set training.batch_size=4 ")


def test_with_one_row_at_a_time_the_rows_become_shorter() -> None:
    on = cluster(1, 40)
    failed = plan(on, data={"source": "a/b", "max_length": 1024}, training={"batch_size": 1, "global_batch_size": 8})
    following = next_that_fits(
        failed.settings, failed.strategy, failed.topology, failed.memory, failed.precision, on, llama_8b()
    )
    assert following is not None
    assert (following.batch_size, following.max_length) == (1, 512)
    unknown = UnknownModel()
    parts = (failed.settings, failed.strategy, failed.topology, failed.memory, failed.precision, on)
    assert next_that_fits(*parts, unknown) is None


def test_a_plan_for_many_ranks_knows_its_memory() -> None:
    found = plan(cluster(8, 24), launch={"nodes": 1024})
    assert (found.topology.ranks, found.strategy) == (8192, "fsdp")
