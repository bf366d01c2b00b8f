"""Interrupted at any time, by anyone, several times over: it ends in words, and the same command goes on, exactly."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lft.core.run_dir import RunDir
from lft.demo.tiny import make_tiny
from tests.faults.faults import Run, end, faulty_model, marked, settings, start, wait_until

STEPS = 8
SLOWLY = {"slow_seconds": 0.15, "ranks": []}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of random weights, and its rows."""
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def model(tiny: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with a fault in it."""
    return faulty_model(tiny[0], tmp_path_factory.mktemp("faulty") / "model")


@pytest.fixture(scope="module")
def data(tiny: tuple[Path, Path]) -> Path:
    """64 rows."""
    return tiny[1]


@pytest.fixture(scope="module")
def undisturbed(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """The adapter of a run that nobody interrupted."""
    run = end(start(tmp_path_factory.mktemp("undisturbed") / "run.yaml", values_in(Path("out"), model, data), {}))
    assert run.exit_code == 0, run.text
    return load_file("out/adapter_model.safetensors")


@pytest.fixture(scope="module", autouse=True)
def _somewhere(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("somewhere"))
        yield


def values_in(output_dir: Path, model: Path, data: Path) -> dict[str, Any]:
    """Settings of STEPS steps, with dropout: what is drawn must go on, too."""
    values = settings(model, data, output_dir)
    values["training"] |= {"max_steps": STEPS, "save_every": STEPS}
    values["lora"]["lora_dropout"] = 0.1
    return values


def begin(folder: Path, model: Path, data: Path) -> Run:
    """Start the run of a folder, as slowly as one can interrupt it; the second time it is the same command again."""
    return start(folder / "run.yaml", values_in(folder / "out", model, data), SLOWLY)


def signal_all(run: Run, *numbers: signal.Signals) -> None:
    """What a scheduler does, several times: signal every process of the job."""
    for number in numbers:
        for pid in (run.process.pid, *run.pids().values()):
            os.kill(pid, number)


def test_every_process_may_be_signalled_at_once_and_several_times_and_the_same_command_goes_on_exactly(
    model: Path, data: Path, tmp_path: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    run = begin(tmp_path, model, data)
    run.wait_for_step(3)
    signal_all(run, signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR2, signal.SIGTERM)
    stopped = end(run)
    assert (stopped.exit_code, stopped.left) == (75, []), stopped.text
    assert "is saved; in " in stopped.text
    assert " s after SIGUSR1" in stopped.text
    assert ", or the same command   from checkpoint-" in stopped.text
    again = end(begin(tmp_path, model, data))
    assert again.exit_code == 0, again.text
    assert "resume     from checkpoint-" in again.text
    assert "written by attempt 0" in again.text
    adapter = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all(torch.equal(adapter[name], undisturbed[name]) for name in undisturbed)
    done = end(begin(tmp_path, model, data))
    assert done.exit_code == 0
    assert "is done; there is nothing to go on with" in done.text


def test_after_a_kill_of_the_launcher_the_same_command_goes_on_and_no_lock_is_in_its_way(
    model: Path, data: Path, tmp_path: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    values = values_in(tmp_path / "out", model, data)
    values["training"]["save_every"] = 2
    run = start(tmp_path / "run.yaml", values, SLOWLY)
    wait_until((tmp_path / "out" / "checkpoint-2" / "manifest.json").exists)
    os.kill(run.process.pid, signal.SIGKILL)
    assert (end(run).exit_code, run.left) == (-9, [])
    again = end(start(tmp_path / "run.yaml", values, {}))
    assert again.exit_code == 0, again.text
    assert "resume     from checkpoint-" in again.text
    adapter = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all(torch.equal(adapter[name], undisturbed[name]) for name in undisturbed)


def test_a_rank_that_is_signalled_as_it_is_born_stops_the_run_before_training_and_nobody_waits_for_it(
    model: Path, data: Path, tmp_path: Path
) -> None:
    run = begin(tmp_path, model, data)
    wait_until(lambda: 1 in run.pids())
    run.send(signal.SIGUSR1, 1)  # it has not imported anything yet: without care this is its death
    stopped = end(run)
    assert (stopped.exit_code, stopped.left) == (75, []), stopped.text
    assert "stopped before training; nothing was lost" in stopped.text
    assert "from the first step: there is no checkpoint yet" in stopped.text


def test_nodes_that_share_a_folder_stop_when_one_is_asked_to_and_go_on_with_the_same_commands(
    model: Path, data: Path, tmp_path: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    def nodes(port: int, fault: dict[str, Any]) -> list[Run]:
        values = values_in(tmp_path / "out", model, data)
        words = ("--nodes", "2", "--rdzv", f"127.0.0.1:{port}", "--cpu-procs", "1")
        files = [tmp_path / f"node-{node}.yaml" for node in range(2)]
        return [start(file, values, fault, *words, "--node-rank", str(node)) for node, file in enumerate(files)]

    first, second = nodes(free_port(), SLOWLY)
    wait_until(lambda: (first.beat(0).step or 0) >= 3)
    second.process.send_signal(signal.SIGTERM)
    assert [(end(run).exit_code, run.left) for run in (first, second)] == [(75, []), (75, [])], first.text + second.text
    assert "the same command on every node   from checkpoint-" in first.text
    assert "the same command on every node; node 0 says from where" in second.text
    again, its_partner = (end(run) for run in nodes(free_port(), {}))
    assert (again.exit_code, its_partner.exit_code) == (0, 0), again.text + its_partner.text
    assert all("resume     from checkpoint-" in run.text for run in (again, its_partner))
    adapter = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert max(float((adapter[name] - undisturbed[name]).abs().max()) for name in undisturbed) < 1e-6


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_two_launches_on_one_folder_are_one_run_and_one_refusal_that_names_it(
    model: Path, data: Path, tmp_path: Path
) -> None:
    run = begin(tmp_path, model, data)
    wait_until(RunDir(tmp_path / "out").lock.exists)
    wait_until(lambda: bool(run.pids()))
    second = end(start(tmp_path / "second.yaml", values_in(tmp_path / "out", model, data), {}))
    assert second.exit_code == 3
    assert f"is running: attempt 0 (pid {run.process.pid} on " in second.text
    run.process.send_signal(signal.SIGTERM)
    assert end(run).exit_code == 75


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR2, 75), (signal.SIGINT, 130)])
def test_a_signal_while_the_launcher_still_imports_ends_it_in_words(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "lft.cli.main", "launch", "--model", "a/b", "--dataset", "c/d"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_until(lambda: catches(process.pid, number), 20)
    for _ in range(3):
        process.send_signal(number)
    _, words = process.communicate(timeout=20)
    assert process.returncode == code
    assert words.startswith(f"  stopped    by {number.name} before anything was started\n")
    assert list(tmp_path.iterdir()) == []


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal, as the kernel sees it."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    handlers = int(caught, 16)
    is_ours = handlers >> (signal.SIGUSR1 - 1) & 1  # Python itself catches SIGINT
    return bool(is_ours and handlers >> (number - 1) & 1)


def test_a_folder_in_which_nothing_can_be_written_is_said_in_words_before_any_rank_starts(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    command = [sys.executable, "-m", "lft.cli.main", "launch", "--model", "a/b", "--dataset", "rows.jsonl"]
    done = subprocess.run(
        [*command, "--output-dir", "out", "--cpu-procs", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),  # as a full disk: no byte more
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "out cannot be written: File too large" in done.stderr
    assert "choose another --output-dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_a_run_is_left_when_its_launcher_is_killed_as_it_starts_its_ranks(
    model: Path, data: Path, tmp_path: Path
) -> None:
    run = begin(tmp_path, model, data)
    wait_until(lambda: bool(run.pids()))
    run.send(signal.SIGKILL)
    assert end(run).left == []
    assert marked(run.mark) == []
    assert json.loads((tmp_path / "out" / "run" / "attempt-0" / "launcher.json").read_text())["pid"] == run.process.pid
