"""The strategy: the cheapest that fits, with its reason; refusals with their ways out; the next run after running out."""

from typing import Any

import pytest

from lft.core.errors import PreflightError, SettingsError
from lft.core.hardware import Gpu, Machine
from lft.core.model_facts import ModelFacts, UnknownModel
from lft.plan.adviser import next_that_fits
from lft.plan.launch_plan import LaunchPlan, make_plan
from lft.plan.memory import predict_memory
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


def test_a_run_that_does_not_fit_computes_its_layers_twice_and_says_why() -> None:
    found = plan(cluster(4, 24))
    assert (found.strategy, found.gradient_checkpointing) == ("ddp", True)
    assert "gradient checkpointing" in line(found, "recompute")
    assert "ddp needs 23.3" in line(found, "recompute")
    assert "of 24.0 GB per GPU without it" in line(found, "recompute")
    assert found.order("train").settings.training.gradient_checkpointing is True
    assert found.settings.training.gradient_checkpointing == "auto", "decided anew where the run goes on"
    roomy = plan(cluster(4, 80))
    assert not roomy.gradient_checkpointing
    assert "it fits without" in line(roomy, "recompute")
    assert roomy.order("train").settings.training.gradient_checkpointing is False


@pytest.mark.parametrize("wanted", [True, False])
def test_gradient_checkpointing_is_what_is_asked_for(wanted: bool) -> None:
    found = plan(cluster(4, 80), training={"batch_size": 1, "gradient_checkpointing": wanted})
    assert found.gradient_checkpointing is wanted
    assert "asked for" in line(found, "recompute")
    unknown = plan(cluster(4, 80), UnknownModel(), training={"gradient_checkpointing": wanted})
    assert unknown.gradient_checkpointing is wanted


def test_a_model_that_ddp_cannot_hold_is_sharded_and_the_reason_has_the_figures() -> None:
    found = plan(cluster(4, 24), training={"batch_size": 1, "gradient_checkpointing": False})
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
    asked: dict[str, Any] = {"data": dict(ROWS), "training": {}, "launch": {}}
    for flag in (word for word in caught.value.next_step.split() if "=" in word):
        name, _, value = flag.partition("=")
        asked[name.partition(".")[0]][name.partition(".")[2]] = value
    smaller = plan(cluster(4, 24), **asked)
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


@pytest.mark.parametrize(
    ("training", "launch", "words"),
    [
        ({"optimizer": "adamw_8bit"}, {"gpus": 0}, ["adamw_8bit is for GPUs"]),
        ({"optimizer": "paged_adamw_8bit", "liger": True}, {"cpu_procs": 2}, ["paged_adamw_8bit is", "liger is for"]),
        *(({"optimizer": "adamw_8bit"}, {"strategy": name}, [f"{name} makes"]) for name in ("zero2", "zero3", "fsdp")),
        ({"liger": True}, {"strategy": "device-map"}, ["lays layers over several"]),
        ({"optimizer": "adamw_8bit", "liger": True}, {"strategy": "fsdp"}, ["fsdp makes", "'lft[liger]'"]),
    ],
)
def test_optimizers_and_kernels_that_leave_no_room_for_each_other_are_refused_all_at_once(
    training: dict[str, Any], launch: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        plan(cluster(4, 80), training=training, launch=launch)
    assert all(any(word in mistake for mistake in caught.value.mistakes) for word in words)
    assert "--set" in caught.value.next_step


def test_optimizers_and_kernels_that_are_not_there_are_refused_with_the_line_that_installs_them() -> None:
    with pytest.raises(PreflightError) as caught:
        plan(cluster(4, 80), training={"optimizer": "adamw_8bit", "liger": True})
    for words in ("bitsandbytes; pip install 'lft[bitsandbytes]'", "liger-kernel; pip install 'lft[liger]'"):
        assert words in str(caught.value)
    with pytest.raises(PreflightError, match="none can be used here"):
        plan(cluster(0, 0), training={"liger": True})
    there = cluster(4, 80).model_copy(update={"has_bitsandbytes": True, "has_liger": True})
    found = plan(there, training={"optimizer": "paged_adamw_8bit", "liger": True})
    assert "by bitsandbytes" in line(found, "optimizer")
    assert "the loss stays lft's" in line(found, "kernels")


def test_with_an_optimizer_of_8_bits_the_plan_takes_no_strategy_that_shards_it() -> None:
    there = cluster(4, 24).model_copy(update={"has_bitsandbytes": True})
    wide = {"r": 1024, "target_modules": "all-linear"}
    asked: dict[str, Any] = {"training": {"batch_size": 1, "optimizer": "adamw_8bit"}, "lora": wide}
    assert plan(there, **asked).strategy == "device-map"
    eight, whole = (
        predict_memory(
            llama_8b(), settings(training={"optimizer": name}), "ddp", devices=4, precision="bf16", device="cuda"
        )
        for name in ("adamw_8bit", "adamw")
    )
    assert eight.optimizer == whole.optimizer // 4


def test_float32_on_gpus_that_have_tf32_uses_it_and_says_so() -> None:
    assert "TF32" in line(plan(cluster(4, 80), launch={"precision": "fp32"}), "precision")
    assert "TF32" not in line(plan(cluster(4, 80), launch={"precision": "bf16"}), "precision")
    assert "TF32" not in line(plan(cluster(0, 0), launch={"precision": "fp32"}), "precision")


def test_fewer_gpus_than_asked_for_make_a_smaller_run_of_one_rank_and_no_refusal() -> None:
    found = plan(cluster(1, 80), launch={"strategy": "zero2", "gpus": 4})
    assert found.strategy == "single"
    assert "4 GPUs asked for, 1 here" in found.notices[0]


def test_after_running_out_of_memory_the_next_run_has_smaller_batches_and_computes_the_same_steps() -> None:
    on = cluster(4, 80)
    failed = plan(on, training={"batch_size": 8, "global_batch_size": 64})
    assert failed.memory is not None
    following = next_that_fits(failed, on, llama_8b())
    assert following is not None
    assert following.memory.total <= 0.9 * failed.memory.total
    assert following.changes == {"training.batch_size": 4, "training.global_batch_size": 64}
    assert str(following).startswith("--set training.batch_size=4 --set training.global_batch_size=64   predicted ")


def test_with_one_row_at_a_time_layers_are_computed_twice_and_then_rows_become_shorter() -> None:
    on, asked = cluster(1, 80), {"batch_size": 1, "global_batch_size": 8}
    failed = plan(on, data={"source": "a/b", "max_length": 8192}, training=asked)
    assert not failed.gradient_checkpointing
    again = next_that_fits(failed, on, llama_8b())
    assert again is not None
    assert again.changes == {"training.gradient_checkpointing": "true"}
    tried = plan(on, data={"source": "a/b", "max_length": 8192}, training=asked | {"gradient_checkpointing": True})
    assert tried.memory == again.memory, "the run that is typed is the one that was predicted"
    shorter = next_that_fits(tried, on, llama_8b())
    assert shorter is not None
    assert shorter.changes == {"data.max_length": 4096}


def test_what_does_not_fit_at_all_on_one_gpu_is_shared_out() -> None:
    on, asked = cluster(2, 80), {"batch_size": 1, "global_batch_size": 8, "gradient_checkpointing": True}
    following = next_that_fits(plan(on, training=asked), on, llama_8b())
    assert following is not None
    assert following.changes == {"launch.strategy": "fsdp"}


def test_what_the_rank_really_held_bounds_the_next_run() -> None:
    on = cluster(2, 80)
    again = {"batch_size": 1, "global_batch_size": 8, "gradient_checkpointing": True}
    failed = plan(on, data={"source": "a/b", "max_length": 4096}, training=again)
    bounded = next_that_fits(failed, on, llama_8b(), held_bytes=15 * 10**9)
    assert bounded is not None
    assert bounded.memory.total <= 13.5e9
    assert "of 15.0 GB per GPU" in str(bounded)
    assert next_that_fits(failed, on, UnknownModel()) is None
    assert next_that_fits(failed, on, llama_8b(), held_bytes=10**9) is None


def test_a_plan_for_many_ranks_knows_its_memory() -> None:
    found = plan(cluster(8, 16), launch={"nodes": 1024})
    assert (found.topology.ranks, found.strategy) == (8192, "fsdp")
