"""Plans: values made from settings and a machine, on any machine, without touching it."""

import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from lft.core.allocation import SlurmAllocation
from lft.core.errors import LftError, PreflightError, SettingsError
from lft.core.hardware import Gpu, Machine
from lft.core.rank import Rank
from lft.core.settings import LaunchSettings, RunSettings, Strategy, TrainingSettings
from lft.plan.batch import plan_batch
from lft.plan.commands import command_line
from lft.plan.launch_plan import LaunchPlan, make_plan
from lft.plan.topology import choose_topology


def machine(gpus: int = 0, cores: int = 8, *, gpu_bf16: bool = True, cpu_bf16: bool = False) -> Machine:
    """A machine that need not exist; its GPUs are called a, b, c, ..."""
    cards = tuple(
        Gpu(token=token, name="NVIDIA H100", memory_bytes=80 * 2**30, computes_bf16=gpu_bf16)
        for token in "abcdefgh"[:gpus]
    )
    return Machine(gpus=cards, cpu_cores=cores, memory_bytes=2**36, cpu_computes_bf16=cpu_bf16, has_deepspeed=True)


def settings(**sections: dict[str, Any]) -> RunSettings:
    """Settings of a run, with these sections."""
    start: dict[str, Any] = {"model": {"name": "a/b"}, "data": {"source": "a/b"}, "output_dir": "/runs/x"}
    return RunSettings.model_validate(start | sections)


@pytest.mark.parametrize(
    ("launch", "on", "expected"),
    [
        # launch settings, machine -> device, ranks, ranks asked for, GPUs, threads of each rank
        ({}, machine(gpus=4), ("cuda", 4, 4, "abcd", 2)),
        ({}, machine(gpus=4, cores=2), ("cuda", 4, 4, "abcd", 1)),
        ({}, machine(cores=8), ("cpu", 2, 2, "", 4)),
        ({}, machine(cores=1), ("cpu", 1, 1, "", 1)),
        ({"gpus": 4}, machine(gpus=8), ("cuda", 4, 4, "abcd", 2)),
        ({"gpus": 4}, machine(gpus=2), ("cuda", 2, 4, "ab", 4)),
        ({"gpus": 4}, machine(), ("cpu", 2, 4, "", 4)),
        ({"gpus": 4, "cpu_procs": 3}, machine(), ("cpu", 3, 4, "", 2)),
        ({"gpus": 4, "cpu_procs": 3}, machine(gpus=4), ("cuda", 4, 4, "abcd", 2)),
        ({"gpus": 0}, machine(gpus=4), ("cpu", 2, 2, "", 4)),
        ({"cpu_procs": 3}, machine(gpus=4), ("cpu", 3, 3, "", 2)),
        ({"cpu_procs": 16}, machine(cores=8), ("cpu", 16, 16, "", 1)),
        ({"strategy": "single"}, machine(gpus=4), ("cuda", 1, 1, "a", 8)),
        ({"strategy": "single"}, machine(), ("cpu", 1, 1, "", 8)),
        ({"strategy": "single", "gpus": 4}, machine(gpus=4), ("cuda", 1, 1, "a", 8)),
        ({"strategy": "single", "gpus": 4}, machine(), ("cpu", 1, 1, "", 8)),
        ({"strategy": "single", "cpu_procs": 4}, machine(), ("cpu", 1, 1, "", 8)),
        ({"strategy": "device-map"}, machine(gpus=4), ("cuda", 1, 1, "abcd", 8)),
        ({"strategy": "device-map", "gpus": 4}, machine(gpus=2), ("cuda", 1, 1, "ab", 8)),
        ({"strategy": "device-map"}, machine(), ("cpu", 1, 1, "", 8)),
        ({"strategy": "zero3", "gpus": 4}, machine(gpus=4), ("cuda", 4, 4, "abcd", 2)),
        ({"strategy": "fsdp"}, machine(), ("cpu", 2, 2, "", 4)),
        ({"nodes": 2, "gpus": 4}, machine(gpus=4), ("cuda", 8, 8, "abcd", 2)),
        ({"nodes": 2, "gpus": 4}, machine(gpus=2), ("cuda", 4, 8, "ab", 4)),
        ({"nodes": 3, "gpus": 4}, machine(), ("cpu", 6, 12, "", 4)),
        ({"gpus": 2, "strict": True}, machine(gpus=2), ("cuda", 2, 2, "ab", 4)),
        ({"strict": True}, machine(), ("cpu", 2, 2, "", 4)),
    ],
)  # fmt: skip
def test_ranks_go_where_the_user_wants_as_far_as_the_machine_can(
    launch: dict[str, Any], on: Machine, expected: tuple[str, int, int, str, int]
) -> None:
    found = choose_topology(LaunchSettings(**launch), on)
    assert (found.device, found.ranks, found.asked_ranks, "".join(found.gpus), found.threads_per_rank) == expected


@pytest.mark.parametrize(("on", "here"), [(machine(), 0), (machine(gpus=2), 2)])
def test_strict_makes_fewer_gpus_an_error_that_says_what_would_do(on: Machine, here: int) -> None:
    with pytest.raises(PreflightError) as caught:
        choose_topology(LaunchSettings(gpus=4, strict=True), on)
    assert f"4 GPUs are asked for and {here} can be used here" in str(caught.value)
    assert f"--gpus {here}" in caught.value.next_step


def test_inside_a_slurm_job_fewer_gpus_are_an_error_unless_the_user_says_otherwise() -> None:
    job = SlurmAllocation(job_id="48213", node_list="gpu-a2", nodes=1, in_step=False)
    inside = machine(gpus=2).model_copy(update={"slurm": job})
    with pytest.raises(PreflightError) as caught:
        choose_topology(LaunchSettings(gpus=4), inside)
    assert "4 GPUs are asked for and 2 can be used here; inside a job (SLURM job 48213)" in str(caught.value)
    assert "--gpus 2" in caught.value.next_step
    assert "--no-strict" in caught.value.next_step
    assert choose_topology(LaunchSettings(gpus=4, strict=False), inside).ranks == 2
    assert choose_topology(LaunchSettings(), inside).ranks == 2


@pytest.mark.parametrize("strategy", ["single", "device-map"])
def test_several_nodes_of_one_rank_are_refused(strategy: Strategy) -> None:
    with pytest.raises(SettingsError) as caught:
        choose_topology(LaunchSettings(nodes=2, strategy=strategy), machine(gpus=2))
    assert f"launch.strategy {strategy} is one rank, and launch.nodes is 2" in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "on", "expected"),
    [
        ("auto", machine(gpus=2), "ddp"),
        ("auto", machine(gpus=1), "single"),
        *((strategy, machine(gpus=2), strategy) for strategy in get_args(Strategy)),
        *((strategy, machine(), strategy) for strategy in ("single", "ddp", "zero2", "zero3", "fsdp")),
        *((strategy, machine(gpus=1), "single") for strategy in get_args(Strategy)),
    ],
)
def test_a_strategy_is_the_one_asked_for_wherever_there_is_something_to_share(
    asked: str, on: Machine, expected: Strategy
) -> None:
    plan = make_plan(settings(launch={"strategy": asked}), on)
    assert (plan.strategy, plan.order("train").strategy) == (expected, expected)
    line = next(choice for choice in plan.choices if choice.name == "strategy")
    assert line.value.startswith(expected)
    assert asked in ("auto", expected) or f"{asked} is for several" in line.reason


@pytest.mark.parametrize(
    ("launch", "on", "notice"),
    [
        (
            {"gpus": 4},
            machine(),
            "no GPU on this machine: running 2 ranks on the CPU instead of the 4 GPUs asked for; "
            "the global batch stays 64 (accumulation 8)",
        ),
        (
            {"gpus": 4},
            machine(gpus=1),
            "4 GPUs asked for, 1 here: running 1 rank; the global batch stays 64 (accumulation 16)",
        ),
        (
            {"gpus": 4},
            machine(gpus=3),
            "4 GPUs asked for, 3 here: running 3 ranks; the global batch grows from 64 to 72 (accumulation 6)",
        ),
        (
            {"gpus": 4, "nodes": 2},
            machine(gpus=2),
            "4 GPUs a node asked for, 2 here: running 4 ranks on 2 nodes; the global batch stays 128 (accumulation 8)",
        ),
        (
            {"gpus": 4, "nodes": 2},
            machine(),
            "no GPU on this machine: running 4 ranks on the CPU on 2 nodes instead of the 4 GPUs a node asked for; "
            "the global batch stays 128 (accumulation 8)",
        ),
        (
            {"gpus": 4, "strategy": "device-map"},
            machine(gpus=2),
            "4 GPUs asked for, 2 here: running 1 rank on 2 GPUs; the global batch stays 16 (accumulation 4)",
        ),
        ({"gpus": 2}, machine(gpus=4), None),
        ({}, machine(), None),
    ],
)
def test_a_smaller_machine_than_asked_for_is_said_with_what_becomes_of_the_batch(
    launch: dict[str, Any], on: Machine, notice: str | None
) -> None:
    assert make_plan(settings(launch=launch), on).notices == (() if notice is None else (notice,))


@pytest.mark.parametrize("micro", [1, 3, 4])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("asked", [1, 2, 4, 8])
@pytest.mark.parametrize("wanted", [None, 24, 96])
def test_the_global_batch_is_micro_batch_times_accumulation_times_ranks(
    micro: int, ranks: int, asked: int, wanted: int | None
) -> None:
    training = TrainingSettings(batch_size=micro, global_batch_size=wanted)
    default = micro * 4 * asked
    if wanted and wanted % (micro * ranks):
        with pytest.raises(SettingsError, match=f"training.global_batch_size\\({wanted}\\) is no multiple"):
            plan_batch(training, ranks, asked)
        return
    batch, _ = plan_batch(training, ranks, asked)
    assert batch.global_batch == batch.micro_batch * batch.accumulation * batch.world_size
    assert (batch.micro_batch, batch.world_size) == (micro, ranks)
    if wanted:
        assert batch.global_batch == wanted
    else:
        assert default <= batch.global_batch < default + micro * ranks, (
            "never fewer rows, and rounded up by less than a turn"
        )


@pytest.mark.parametrize(
    ("wanted", "fitting", "suggested"), [(10, "6 or 12", 6), (3, "6", 6), (13, "12 or 18", 12), (5, "6", 6)]
)
def test_a_batch_that_does_not_divide_is_refused_with_those_that_do(wanted: int, fitting: str, suggested: int) -> None:
    with pytest.raises(SettingsError) as caught:
        plan_batch(TrainingSettings(batch_size=3, global_batch_size=wanted), 2, 2)
    assert caught.value.mistakes == (
        f"training.global_batch_size({wanted}) is no multiple of batch_size(3) x ranks(2) = 6; "
        f"use {fitting}, or another batch_size",
    )
    assert caught.value.next_step == f"--set training.global_batch_size={suggested}"
    batch, _ = plan_batch(TrainingSettings(batch_size=3, global_batch_size=suggested), 2, 2)
    assert batch.global_batch == suggested


@pytest.mark.parametrize(
    ("asked", "on", "expected"),
    [
        ("auto", machine(), "fp32"),
        ("auto", machine(cpu_bf16=True), None),
        ("auto", machine(gpus=1), None),
        ("fp32", machine(gpus=1), "fp32"),
        ("fp16", machine(gpus=1, gpu_bf16=False), "fp16"),
        ("bf16", machine(gpus=1), "bf16"),
        ("bf16", machine(), "bf16"),
        ("fp32", machine(cpu_bf16=True), "fp32"),
    ],
)
def test_the_precision_is_the_one_asked_for_or_left_to_those_who_can_tell(
    asked: str, on: Machine, expected: str | None
) -> None:
    plan = make_plan(settings(launch={"precision": asked}), on)
    assert plan.precision == expected
    assert plan.order("train").precision == expected
    assert next(choice for choice in plan.choices if choice.name == "precision").reason
    assert plan.order("benchmark", "bf16").precision == "bf16", "settled by the job before"


@pytest.mark.parametrize(
    ("asked", "on", "words"),
    [
        ("fp16", machine(), "fp16 on a CPU"),
        ("bf16", machine(gpus=2, gpu_bf16=False), "does not compute bf16"),
    ],
)
def test_a_precision_the_device_cannot_compute_is_refused(asked: str, on: Machine, words: str) -> None:
    with pytest.raises(PreflightError, match=words) as caught:
        make_plan(settings(launch={"precision": asked}), on)
    assert "precision" in caught.value.next_step


def test_only_the_gpus_that_are_used_must_compute_the_precision() -> None:
    mixed = machine(gpus=2)
    old = mixed.gpus[1].model_copy(update={"computes_bf16": False})
    mixed = mixed.model_copy(update={"gpus": (mixed.gpus[0], old)})
    assert make_plan(settings(launch={"precision": "bf16", "gpus": 1}), mixed).precision == "bf16"
    with pytest.raises(PreflightError):
        make_plan(settings(launch={"precision": "bf16", "gpus": 2}), mixed)


@pytest.mark.parametrize("on", [machine(), machine(gpus=4)], ids=["cpu", "gpus"])
def test_a_plan_is_a_value_that_depends_on_nothing_but_settings_and_machine(
    on: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(settings(), on, attempt=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setenv("WORLD_SIZE", "7")
    assert make_plan(settings(), on, attempt=3) == plan
    assert LaunchPlan.model_validate_json(plan.model_dump_json()) == plan
    assert list(tmp_path.iterdir()) == []
    assert all(choice.value for choice in plan.choices)


@pytest.mark.parametrize(
    ("held_out", "prompts", "expected"),
    [
        (0.05, 200, "5 % of the rows held out, at most 200 of them to compare base and tuned model"),
        (0.005, 9, "0.5 % of the rows held out, at most 9 of them to compare base and tuned model"),
        (64, 0, "64 rows held out"),
        (0, 9, "no row held out, so no benchmark"),
    ],
)
def test_the_plan_says_what_is_held_out_and_for_what(held_out: float, prompts: int, expected: str) -> None:
    plan = make_plan(
        settings(data={"source": "a/b", "held_out": held_out}, benchmark={"num_prompts": prompts}), machine()
    )
    assert {choice.name: choice.reason for choice in plan.choices}["data"] == expected


def test_every_rank_is_told_who_it_is_and_sees_only_what_it_computes_on() -> None:
    on_gpus = make_plan(settings(launch={"gpus": 2}), machine(gpus=4, cores=6))
    on_cpu = make_plan(settings(launch={"cpu_procs": 2}), machine(gpus=4, cores=6))
    for rank in (0, 1):
        for plan, visible in ((on_gpus, "a,b"), (on_cpu, "")):
            environment = plan.environment(rank)
            assert Rank.from_environment(environment) == Rank(
                rank=rank, local_rank=rank, world_size=2, local_world_size=2
            )
            assert (environment["CUDA_VISIBLE_DEVICES"], environment["OMP_NUM_THREADS"]) == (visible, "3")


def test_the_command_of_a_rank_names_the_order_that_is_written(tmp_path: Path) -> None:
    plan = make_plan(settings().model_copy(update={"output_dir": tmp_path / "my runs"}), machine(), attempt=2)
    order = tmp_path / "my runs" / "run" / "attempt-2" / "order.json"
    assert plan.argv("train") == [sys.executable, "-m", "lft.train.worker", str(order)]
    assert plan.argv("benchmark")[-1] == str(order.with_name("benchmark-order.json"))
    assert command_line(plan) == f"python -m lft.train.worker '{order}'"


def test_every_refusal_says_what_to_do_next() -> None:
    refused: list[tuple[dict[str, Any], Machine]] = [
        ({"launch": {"gpus": 1, "strict": True}}, machine()),
        ({"launch": {"precision": "fp16"}}, machine()),
        ({"training": {"global_batch_size": 7}}, machine()),
    ]
    for sections, on in refused:
        with pytest.raises(LftError) as caught:
            make_plan(settings(**sections), on)
        assert caught.value.next_step


def test_the_plan_names_all_sources_and_how_often_their_rows_are_used() -> None:
    sources = [{"source": "a/b"}, {"source": "/rows/x.jsonl", "weight": 0.5}]
    plan = make_plan(settings(data={"source": sources}), machine())
    assert {choice.name: choice.value for choice in plan.choices}["data"] == "a/b, /rows/x.jsonl (each row 0.5 times)"
