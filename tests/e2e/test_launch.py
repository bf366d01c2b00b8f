"""`lft launch` with real ranks over gloo, on a tiny model: the run directory, the numbers, and everything that goes wrong."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lft.core.events import Event
from lft.core.order import WorkerReport
from tests.conftest import TinyModels, demo_lines, run_lft

TINY: dict[str, dict[str, Any]] = {
    "lora": {"lora_dropout": 0.0, "r": 4},
    "training": {"num_epochs": 1, "batch_size": 4, "global_batch_size": 16, "learning_rate": 0.01, "log_every": 1},
    "benchmark": {"num_prompts": 12, "max_new_tokens": 12, "batch_size": 5},
    "launch": {"precision": "fp32"},
}


def write_run_file(path: Path, model: Path, source: Path, output_dir: Path, **changes: dict[str, Any]) -> Path:
    """A run file; sections in `changes` are laid over those of TINY."""
    settings: dict[str, Any] = {name: {**section, **changes.pop(name, {})} for name, section in TINY.items()}
    settings |= {"model": {"name": str(model)}, "output_dir": str(output_dir)}
    settings["data"] = {"source": str(source), "held_out": 15, "max_length": 96} | changes.pop("data", {})
    path.write_text(json.dumps(settings | changes), encoding="utf-8")
    return path


def adapter(output_dir: Path) -> dict[str, torch.Tensor]:
    """The final adapter's weights."""
    return load_file(output_dir / "adapter_model.safetensors")


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    """72 rows: with 15 held out, 57 to train on, which no number of ranks divides."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(demo_lines(72)), encoding="utf-8")
    return path


def test_any_number_of_ranks_gives_the_same_adapter_and_the_same_scores(
    tiny_models: TinyModels, tmp_path: Path, rows_file: Path
) -> None:
    reports = {}
    for ranks in (1, 2, 3):
        output_dir = tmp_path / f"out {ranks}"
        changes: dict[str, Any] = {"training": {"batch_size": 2, "global_batch_size": 12}}
        run_file = write_run_file(tmp_path / "run.yaml", tiny_models.llama, rows_file, output_dir, **changes)
        done = run_lft("launch", run_file, "--cpu-procs", ranks, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        reports[ranks] = json.loads((output_dir / "run" / "report.json").read_text(encoding="utf-8"))
        assert len(reports[ranks]["training"]["peak_memory_bytes_by_rank"]) == ranks
    alone = adapter(tmp_path / "out 1")
    assert any(tensor.abs().max() > 1e-3 for name, tensor in alone.items() if "lora_B" in name)
    for ranks in (2, 3):
        shared = adapter(tmp_path / f"out {ranks}")
        assert shared.keys() == alone.keys()
        assert max(float((shared[name] - alone[name]).abs().max()) for name in alone) < 1e-5
        losses = [[entry["loss"] for entry in reports[count]["training"]["losses"]] for count in (1, ranks)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    # the adapter is the same to rounding only, so the scores are compared on one and the same adapter
    scores = []
    for ranks in (1, 3):
        again = run_lft("benchmark", tmp_path / "out 1", "--cpu-procs", ranks, "--num-prompts", 11, cwd=tmp_path)
        assert again.returncode == 0, again.stdout + again.stderr
        report = json.loads((tmp_path / "out 1" / "run" / "report.json").read_text(encoding="utf-8"))
        assert report["benchmark"]["prompts"] == 11
        assert report["training"] == reports[1]["training"]
        scores.append({name: report["benchmark"][name] for name in ("base", "tuned", "difference", "samples")})
    assert scores[0] == scores[1]
    assert scores[0]["base"]["rougeL"] > 0


def test_a_run_leaves_what_the_run_directory_promises_and_its_settings_repeat_it(
    tiny_models: TinyModels, tmp_path: Path, rows_file: Path
) -> None:
    output_dir = tmp_path / "it's out"
    run_file = write_run_file(tmp_path / "my run;.yaml", tiny_models.gpt2, rows_file, output_dir)
    done = run_lft("launch", run_file, "--cpu-procs", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (
        *("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md", "checkpoint-4"),
        *("run/settings.yaml", "run/plan.json", "run/launch_configs/accelerate.yaml", "run/report.json"),
        *(
            "run/attempt-0/order.json",
            "run/attempt-0/rank-0.log",
            "run/attempt-0/rank-1.log",
            "run/events/rank-1.jsonl",
        ),
    ):
        assert (output_dir / name).exists(), name
    for said in (
        "57 rows to train on, 15 held out",
        "training step 4/4",
        "ROUGE-L",
        "held-out loss",
        "tok/s",
        "base",
    ):
        assert said in done.stdout
    assert str(tmp_path) not in (output_dir / "README.md").read_text(encoding="utf-8")
    again = run_lft("launch", output_dir / "run" / "settings.yaml", "--output-dir", tmp_path / "again", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (tmp_path / "again" / "adapter_model.safetensors").read_bytes() == (
        output_dir / "adapter_model.safetensors"
    ).read_bytes()


def ranks_of(output_dir: Path) -> list[int]:
    """Process ids of ranks that work on a run."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "lft.train.worker" in line and str(output_dir) in line:
                found.append(int(entry.name))
    return sorted(found)


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[str]", seconds: float = 120) -> None:
    """Until the condition holds, while the process lives."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "too slow"
        time.sleep(0.05)


def events_of(output_dir: Path) -> list[Event]:
    """What rank 0 has told so far."""
    path = output_dir / "run" / "events" / "rank-0.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [Event(**json.loads(line)) for line in lines]


def start_long_run(model: Path, tmp_path: Path, rows_file: Path) -> "subprocess.Popen[str]":
    """A run of a hundred thousand epochs that has done its first step."""
    changes = {"training": {"num_epochs": 100_000}}
    run_file = write_run_file(tmp_path / "run.yaml", model, rows_file, tmp_path / "out", **changes)
    command = [sys.executable, "-m", "lft.cli.main", "launch", str(run_file), "--cpu-procs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: any(event.kind == "log" for event in events_of(tmp_path / "out")), process)
    return process


@pytest.mark.parametrize("delay_seconds", [0.0, 0.05, 0.15, 0.4])
def test_no_rank_survives_a_launcher_killed_while_it_starts(
    tiny_models: TinyModels, tmp_path: Path, rows_file: Path, delay_seconds: float
) -> None:
    changes = {"training": {"num_epochs": 100_000}}
    run_file = write_run_file(tmp_path / "run.yaml", tiny_models.llama, rows_file, tmp_path / "out", **changes)
    command = [sys.executable, "-m", "lft.cli.main", "launch", str(run_file), "--cpu-procs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: ranks_of(tmp_path / "out"), process)
    time.sleep(delay_seconds)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while ranks_of(tmp_path / "out") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not ranks_of(tmp_path / "out")


def test_a_stop_before_training_does_not_wait_for_ranks_that_wait_for_one_that_left(
    tiny_models: TinyModels, tmp_path: Path, rows_file: Path
) -> None:
    changes: dict[str, Any] = {"launch": {"grace_seconds": 1000}}
    run_file = write_run_file(tmp_path / "run.yaml", tiny_models.llama, rows_file, tmp_path / "out", **changes)
    command = [sys.executable, "-m", "lft.cli.main", "launch", str(run_file), "--cpu-procs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(lambda: len(ranks_of(tmp_path / "out")) == 2, process)
    held = ranks_of(tmp_path / "out")[1]
    os.kill(held, signal.SIGSTOP)
    joining = "joining the other ranks"
    wait_for(lambda: any(event.data.get("name") == joining for event in events_of(tmp_path / "out")), process)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == 130, output
    assert "stopped before training; nothing was lost" in output
    assert not ranks_of(tmp_path / "out")


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_goes_on(
    tiny_models: TinyModels, tmp_path: Path, rows_file: Path
) -> None:
    process = start_long_run(tiny_models.llama, tmp_path, rows_file)
    try:
        second = run_lft("launch", tmp_path / "run.yaml", cwd=tmp_path)
        stopped = run_lft("stop", tmp_path / "out", "--now", cwd=tmp_path)
    finally:
        process.kill()  # its ranks die with it
        process.communicate()
    assert (second.returncode, stopped.returncode) == (3, 0)
    assert f"is running: attempt 0 (pid {process.pid} on " in second.stderr


@pytest.mark.parametrize(
    ("content", "changes", "code", "said"),
    [
        ('{"text": "a"}\n{"text": \n', {}, 3, "rows.jsonl:2  is not JSON"),
        ('{"a": 1}\n', {}, 3, "no column holds text; the columns are a (number)"),
        ("\n", {}, 3, "holds no rows"),
        ('{"text": "a b"}\n', {}, 3, "leaves no row to train on"),
        (
            '{"prompt": "a", "answer": ""}\n' * 3,
            {"data": {"held_out": 0}},
            3,
            "nothing would be trained",
        ),
        ('{"text": "a b"}\n' * 9, {"data": {"held_out": 0, "text_columns": ["x"]}}, 3, "there is no column x"),
    ],
)
def test_what_ranks_find_wrong_with_the_data_is_one_clear_error_and_leaves_no_adapter(
    tiny_models: TinyModels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    changes: dict[str, Any],
    code: int,
    said: str,
) -> None:
    monkeypatch.setenv(
        "LFT_CACHE", str(tmp_path / "cache")
    )  # with tokens in it, the plan would look at the data itself
    (tmp_path / "rows.jsonl").write_text(content, encoding="utf-8")
    run_file = write_run_file(
        tmp_path / "run.yaml", tiny_models.gpt2, tmp_path / "rows.jsonl", tmp_path / "out", **changes
    )
    done = run_lft("launch", run_file, "--cpu-procs", 2, cwd=tmp_path)
    assert done.returncode == code, done.stdout
    assert said in done.stdout
    # on a busy machine one of them may be too late to report, and is stopped because of the other
    assert re.search(r"^  (ranks 0-1|rank 0|rank 1) failed, while ", done.stdout, re.MULTILINE)
    assert "Traceback" not in done.stdout + done.stderr
    assert not list((tmp_path / "out").glob("adapter*"))
    reported = list((tmp_path / "out" / "run" / "attempt-0" / "failures").glob("rank-*.json"))
    assert reported
    assert {WorkerReport.load(path).exit_code for path in reported} == {code}


def test_without_held_out_rows_or_prompts_there_is_no_benchmark_and_the_adapter_is_there(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    (tmp_path / "rows.txt").write_text("one two three\nfour five six\n", encoding="utf-8")
    changes = {"data": {"held_out": 0}}
    run_file = write_run_file(
        tmp_path / "run.yaml", tiny_models.gpt2, tmp_path / "rows.txt", tmp_path / "out", **changes
    )
    done = run_lft("launch", run_file, "--cpu-procs", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    report = json.loads((tmp_path / "out" / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["benchmark"] is None
    assert report["training"]["steps"] == 1
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()
