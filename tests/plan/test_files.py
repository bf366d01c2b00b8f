"""What a plan writes, and the plan as JSON: everything in it means the plan."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lft.core.allocation import SlurmAllocation
from lft.core.order import WorkerOrder
from lft.core.rank import Rank
from lft.core.rows import about_rows
from lft.core.settings import DataSettings
from lft.core.settings_file import read_settings
from lft.plan.commands import command_line, other_launchers
from lft.plan.document import plan_document
from lft.plan.launch_plan import LaunchPlan, make_plan
from tests.plan.test_plan import machine, settings


def write(plan: LaunchPlan, folder: Path) -> None:
    """The files of a plan, below a folder."""
    for name, text in plan.files().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_the_files_of_a_plan_mean_the_plan(tmp_path: Path) -> None:
    plan = make_plan(settings(training={"global_batch_size": 48, "batch_size": 2}), machine(gpus=2))
    write(plan, tmp_path)
    assert read_settings(tmp_path / "run" / "settings.yaml", {}, []) == plan.settings
    assert LaunchPlan.model_validate_json((tmp_path / "run" / "plan.json").read_text()) == plan
    order = WorkerOrder.load(tmp_path / "run" / "attempt-0" / "order.json")
    assert order == plan.order("train")
    assert (order.world_size, order.device, order.accumulation) == (2, "cuda", 12)


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_global_batch_of_a_run_stays_when_it_goes_on_elsewhere(ranks: int, tmp_path: Path) -> None:
    before = make_plan(settings(), machine(gpus=4))
    write(before, tmp_path)
    again = read_settings(tmp_path / "run" / "settings.yaml", {}, [])
    after = make_plan(again, machine(gpus=ranks))
    assert (before.batch.global_batch, after.batch.global_batch) == (64, 64)
    assert (after.batch.world_size, after.batch.accumulation) == (ranks, 16 // ranks)
    assert before.order("train").settings.training == after.order("train").settings.training


def test_deepspeed_is_told_in_the_file_what_it_is_told_in_the_order(tmp_path: Path) -> None:
    wanted: dict[str, dict[str, Any]] = {
        "launch": {"strategy": "zero3", "precision": "bf16"},
        "training": {"max_grad_norm": 0.5},
    }
    plan = make_plan(settings(**wanted), machine(gpus=4))
    write(plan, tmp_path)
    config = json.loads((tmp_path / "run/launch_configs/deepspeed.json").read_text())
    assert WorkerOrder.load(tmp_path / "run/attempt-0/order.json").deepspeed == config
    assert (config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]) == (4, 4)
    assert (config["train_batch_size"], config["gradient_clipping"]) == (64, 0.5)
    assert (config["bf16"]["enabled"], config["fp16"]["enabled"]) == (True, False)
    accelerate = yaml.safe_load((tmp_path / "run/launch_configs/accelerate.yaml").read_text())
    path = Path(accelerate["deepspeed_config"]["deepspeed_config_file"])
    assert path == plan.run_dir.deepspeed_config, "found from any directory"


@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp", "device-map"])
def test_only_the_zero_strategies_have_a_deepspeed_configuration(strategy: str) -> None:
    plan = make_plan(settings(launch={"strategy": strategy}), machine(gpus=4))
    assert plan.order("train").deepspeed is None
    assert "run/launch_configs/deepspeed.json" not in plan.files()


def test_a_precision_settled_by_an_earlier_job_reaches_deepspeed() -> None:
    plan = make_plan(settings(launch={"strategy": "zero2"}), machine(gpus=4))
    open_order, settled = plan.order("train").deepspeed, plan.order("train", "bf16").deepspeed
    assert open_order is not None
    assert settled is not None
    assert (open_order["bf16"], open_order["fp16"]) == ({"enabled": False}, {"enabled": False})
    assert settled["bf16"] == {"enabled": True}


@pytest.mark.parametrize("launch", [{}, {"strategy": "zero2", "gpus": 4}, {"nodes": 2, "gpus": 4}], ids=str)
def test_the_plan_as_json_holds_all_and_makes_the_same_plan(launch: dict[str, Any]) -> None:
    plan = make_plan(settings(launch=launch), machine(gpus=4))
    text = plan_document(plan)
    assert LaunchPlan.model_validate_json(text) == plan
    whole = json.loads(text)
    assert whole["files"] == plan.files()
    assert [each["rank"] for each in whole["ranks"]] == list(range(plan.topology.ranks))
    for each in whole["ranks"]:
        assert (each["argv"], each["environment"]) == (plan.argv("train"), plan.environment(each["rank"]))
    assert all(choice["value"] for choice in whole["choices"])


def test_a_plan_of_1024_nodes_knows_its_last_rank_and_stays_small_on_the_disk() -> None:
    plan = make_plan(settings(launch={"nodes": 1024, "gpus": 8}), machine(gpus=8))
    whole = json.loads(plan_document(plan))
    last = whole["ranks"][8191]
    assert (last["rank"], last["node"], len(whole["ranks"])) == (8191, 1023, 8192)
    assert Rank.from_environment(last["environment"]) == Rank(
        rank=8191, local_rank=7, world_size=8192, local_world_size=8
    )
    assert last["environment"]["CUDA_VISIBLE_DEVICES"] == "a,b,c,d,e,f,g,h"
    assert plan.batch.global_batch == 4 * 4 * 8192
    assert max(map(len, plan.files().values())) < 20_000


def test_accelerate_starts_the_ranks_of_the_plan_from_the_file_written_for_it(tmp_path: Path) -> None:
    plans = {
        "cpu1": make_plan(settings(launch={"cpu_procs": 1}), machine()),
        "cpu2": make_plan(settings(), machine()),
        "gpu1": make_plan(settings(), machine(gpus=1)),
        "gpu4": make_plan(settings(launch={"precision": "bf16"}), machine(gpus=4)),
        "map4": make_plan(settings(launch={"strategy": "device-map"}), machine(gpus=4)),
        "nodes": make_plan(settings(launch={"nodes": 2, "strategy": "zero2"}), machine(gpus=4)),
    }
    for name, plan in plans.items():
        (tmp_path / f"{name}.yaml").write_text(plan.files()["run/launch_configs/accelerate.yaml"])
    script = """
import json, sys
from accelerate.commands.config.config_args import load_config_from_file
facts = "distributed_type", "num_processes", "num_machines", "mixed_precision", "use_cpu"
loaded = {name: load_config_from_file(f"{name}.yaml").to_dict() for name in sys.argv[1:]}
print(json.dumps({name: [config.get(fact) for fact in facts] for name, config in loaded.items()}))
"""
    command = [sys.executable, "-c", script, *plans]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "cpu1": ["NO", 1, 1, "no", True],
        "cpu2": ["MULTI_GPU", 2, 1, "no", False],
        "gpu1": ["NO", 1, 1, "no", False],
        "gpu4": ["MULTI_GPU", 4, 1, "bf16", False],
        "map4": ["NO", 1, 1, "no", False],
        "nodes": ["DEEPSPEED", 8, 2, None, False],
    }
    assert yaml.safe_load((tmp_path / "gpu4.yaml").read_text())["gpu_ids"] == "all"


@pytest.mark.parametrize(("node_list", "first"), [("gpu-a[2-3]", "gpu-a2"), (None, "FIRST_NODE")])
def test_several_nodes_meet_at_the_first_one_as_far_as_it_is_known(node_list: str | None, first: str) -> None:
    on = machine(gpus=4)
    if node_list:
        job = SlurmAllocation(job_id="1", node_list=node_list, nodes=2, in_step=False)
        on = on.model_copy(update={"slurm": job})
    plan = make_plan(settings(launch={"nodes": 2}), on)
    config = yaml.safe_load(plan.files()["run/launch_configs/accelerate.yaml"])
    assert (config["main_process_ip"], config["main_process_port"]) == (first, 29500)
    accelerate, torchrun = other_launchers(plan)
    assert f"--machine_rank NODE --main_process_ip {first} " in accelerate
    assert f"--nproc-per-node 4 --nnodes 2 --node-rank NODE --master-addr {first} " in torchrun


def test_each_launcher_that_can_start_the_ranks_has_its_command() -> None:
    worker = "-m lft.train.worker /runs/x/run/attempt-0/order.json"
    on_cpu = make_plan(settings(launch={"strategy": "zero2"}), machine())
    assert command_line(on_cpu) == f"python {worker}"
    assert other_launchers(on_cpu) == (
        f"accelerate launch --config_file /runs/x/run/launch_configs/accelerate.yaml {worker}",
        f"torchrun --nproc-per-node 2 {worker}",
        f"deepspeed --num_gpus 2 --no_local_rank --module {worker.removeprefix('-m ')}",
    )
    alone = make_plan(settings(launch={"gpus": 1}), machine(gpus=4))
    assert (command_line(alone), other_launchers(alone)) == (f"CUDA_VISIBLE_DEVICES=a python {worker}", ())
    named = make_plan(settings(launch={"strategy": "zero2"}), machine(gpus=2))
    assert [command.split()[:2] for command in other_launchers(named)] == [
        ["CUDA_VISIBLE_DEVICES=a,b", "accelerate"],
        ["CUDA_VISIBLE_DEVICES=a,b", "torchrun"],
    ], "deepspeed's launcher takes GPUs by number only"


@pytest.mark.parametrize(
    ("sections", "rows", "expected"),
    [
        ({}, 1100, "about 99"),  # 1,045 rows in 33 batches of 32, 3 epochs
        ({"data": {"source": "a/b", "held_out": 100}}, 1100, "about 96"),
        ({"training": {"num_epochs": 1, "global_batch_size": 8}}, 1, "about 1"),
        ({"data": {"source": "a/b", "packing": True}}, 1100, "at most 99"),
        ({"training": {"max_steps": 7}}, 1100, None),
        ({}, None, None),
    ],
)
def test_steps_are_estimated_where_rows_were_counted(
    sections: dict[str, Any], rows: int | None, expected: str | None
) -> None:
    found = {choice.name: choice.value for choice in make_plan(settings(**sections), machine(), rows=rows).choices}
    assert found.get("steps") == expected
    unit = "packs" if sections.get("data", {}).get("packing") else "rows"
    assert f" = 4 {unit} x " in found["batch"] or "training" in sections


@pytest.mark.parametrize(
    ("files", "source", "num_samples", "expected"),
    [
        ({"a.jsonl": "{}\n{}\n{}"}, "a.jsonl", None, 3),
        ({"a.jsonl": "{}\n{}\n{}\n"}, "a.jsonl", 2, 2),
        ({"a.jsonl": "{}\n", "b.txt": "x\ny\n"}, ".", None, 3),
        ({"a.jsonl": "{}\n", "b.csv": "x\ny\n"}, ".", None, None),
        ({"a.jsonl.gz": "{}\n"}, "a.jsonl.gz", None, None),
        ({"a.jsonl": "x" * (64 * 2**20 + 1)}, "a.jsonl", None, None),
        ({}, "someone/data", None, None),
    ],
    ids=["last line open", "first rows", "folder", "csv", "gzipped", "large", "hub"],
)
def test_rows_are_counted_where_a_line_is_a_row_and_counting_is_quick(
    files: dict[str, str],
    source: str,
    num_samples: int | None,
    expected: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert about_rows(DataSettings(source=source, num_samples=num_samples)) == expected
