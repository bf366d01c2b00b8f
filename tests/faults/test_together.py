"""Runs that go on after a fault, runs side by side, and nodes that are one run: real ranks, real kills."""

import json
import os
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lft.core.beat import Beat
from lft.core.checkpoints import complete
from lft.core.run_dir import Attempt, RunDir
from tests.conftest import TinyModels, demo_lines, run_lft
from tests.faults.faults import Run, end, faulty_model, settings, start, wait_until

STEPS = 8


@pytest.fixture(scope="module")
def model(tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with a fault in it."""
    return faulty_model(tiny_models.llama, tmp_path_factory.mktemp("faulty") / "model")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """60 rows."""
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(demo_lines(60)) + "\n", encoding="utf-8")
    return path


def begin(
    folder: Path,
    model: Path,
    data: Path,
    fault: dict[str, Any],
    *words: str,
    terminal: int | None = None,
    **launch: Any,
) -> Run:
    """Start a run of STEPS steps in a folder of its own."""
    folder.mkdir()
    values = settings(model, data, folder / "out", **launch)
    values["training"]["max_steps"] = STEPS
    return start(folder / "run.yaml", values, fault, *words, terminal=terminal)


def adapter(run: Run) -> dict[str, torch.Tensor]:
    """The final adapter of a run that is done."""
    assert run.exit_code == 0, run.text
    assert run.left == []
    return load_file(run.run_dir.output_dir / "adapter_model.safetensors")


def test_after_a_restart_the_adapter_is_that_of_an_undisturbed_run(model: Path, data: Path, tmp_path: Path) -> None:
    undisturbed = adapter(end(begin(tmp_path / "undisturbed", model, data, {})))
    fault = {"kind": "kill -9", "ranks": [1], "step": 6, "once": str(tmp_path / "was here")}
    run = end(begin(tmp_path / "killed", model, data, fault, restarts=1))
    killed = adapter(run)
    assert "restart    rank 1 was killed by SIGKILL; going on from checkpoint-4, 0 restarts left" in run.text
    assert all(torch.equal(killed[name], undisturbed[name]) for name in undisturbed)


def test_launches_started_at_once_never_meet(model: Path, data: Path, tmp_path: Path) -> None:
    runs = [end(run) for run in [begin(tmp_path / str(number), model, data, {}) for number in range(3)]]
    adapters = [adapter(run) for run in runs]
    assert all(torch.equal(other[name], adapters[0][name]) for other in adapters for name in adapters[0])


def test_two_nodes_that_meet_at_an_address_train_as_one(model: Path, data: Path, tmp_path: Path) -> None:
    alone = adapter(end(begin(tmp_path / "one node", model, data, {})))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runs = []
    for node in range(2):
        words = ("--nodes", "2", "--rdzv", f"127.0.0.1:{port}", "--node-rank", str(node), "--cpu-procs", "1")
        runs.append(begin(tmp_path / f"node {node}", model, data, {}, *words))
    first, second = (end(run) for run in runs)
    together = adapter(first)
    assert max(float((together[name] - alone[name]).abs().max()) for name in alone) < 1e-6
    assert (second.exit_code, second.left) == (0, []), second.text
    assert "the adapter is on node 0" in second.text


def test_a_node_whose_partner_fails_ends_too_and_points_to_it(model: Path, data: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runs = []
    for node in range(2):
        words = ("--nodes", "2", "--rdzv", f"127.0.0.1:{port}", "--node-rank", str(node), "--cpu-procs", "1")
        runs.append(begin(tmp_path / f"node {node}", model, data, {"kind": "raise", "ranks": [1], "step": 4}, *words))
    first, second = (end(run) for run in runs)
    assert "ValueError: the tensors do not match" in second.text
    assert (first.exit_code, second.exit_code, first.left, second.left) == (64, 64, [], []), first.text
    assert "see the other nodes' last lines" in first.text


def test_a_terminal_that_is_closed_stops_the_run_with_a_checkpoint(model: Path, data: Path, tmp_path: Path) -> None:
    terminal, its_end = os.openpty()
    close = threading.Event()
    reader = threading.Thread(target=read_until, args=(close, terminal))
    reader.start()
    run = begin(tmp_path / "run", model, data, {"slow_seconds": 0.3, "ranks": []}, terminal=its_end)
    os.close(its_end)
    run.wait_for_step(2)
    run.note_hit()
    close.set()
    end(run)
    reader.join(10)
    assert not reader.is_alive()
    assert (run.exit_code, run.left) == (75, [])
    step = run.beat(0).step
    assert complete(run.run_dir.output_dir)[-1].name == f"checkpoint-{step}"


def read_until(close: threading.Event, terminal: int) -> None:
    """Read what is written to a terminal, or its writers wait; then close it, which hangs up."""
    while not close.is_set():
        if select.select([terminal], [], [], 0.05)[0]:
            os.read(terminal, 4096)
    os.close(terminal)


def test_a_run_started_without_lft_is_seen_kept_apart_and_stopped(model: Path, data: Path, tmp_path: Path) -> None:
    values = settings(model, data, tmp_path / "out", cpu_procs=1)
    (tmp_path / "run.yaml").write_text(json.dumps(values), encoding="utf-8")
    assert run_lft("plan", "run.yaml", "--write", tmp_path / "out", cwd=tmp_path).returncode == 0
    attempt = RunDir(tmp_path / "out").next_attempt().folder.with_name("attempt-0")
    environment = os.environ | {"FAULT": json.dumps({"ranks": [], "slow_seconds": 0.3})}
    command = [sys.executable, "-m", "lft.train.worker", str(attempt / "order.json")]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as rank,
    ):
        wait_until(lambda: (beat := Beat.load(Attempt(attempt).beat(0))) is not None and (beat.step or 0) >= 2)
        status = run_lft("status", "out", cwd=tmp_path).stdout
        second = run_lft("launch", "run.yaml", cwd=tmp_path)
        stop = run_lft("stop", "out", cwd=tmp_path)
        assert rank.wait(60) == 75, (tmp_path / "log").read_text()
    assert "attempt 0 running, started by another launcher than lft, training step" in status
    assert (second.returncode, "is running: attempt 0" in second.stderr) == (3, True)
    assert stop.returncode == 0, stop.stdout + stop.stderr
    assert complete(tmp_path / "out") != []
