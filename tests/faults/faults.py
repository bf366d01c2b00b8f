"""The faults of a launcher's life, each done to a real run of two ranks; what it said, how it ended, what was left."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import termios
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lft.core.beat import Beat
from lft.core.run_dir import RunDir
from lft.launch.stopping import REPEAT_SECONDS

DEADLINE_SECONDS = 180.0
POLL_SECONDS = 0.05
MARK = "FAULT_RUN"


@dataclass
class Run:
    """A run under way, and how it ended."""

    process: subprocess.Popen[str]
    run_dir: RunDir
    mark: str
    output: Path
    started: float = field(default_factory=time.monotonic)
    hit: float = 0.0
    """When the fault was done to it."""
    exit_code: int = 0
    seconds: float = 0.0
    """From the fault until everything had stopped."""
    left: list[int] = field(default_factory=list)
    """Processes that were still there afterwards."""
    text: str = ""

    def pids(self) -> dict[int, int]:
        """Rank -> process, of those that are there."""
        found = {}
        for pid in marked(self.mark):
            variables = environment(pid)
            if b"lft.train.worker" in command(pid) and "RANK" in variables:
                found[int(variables["RANK"])] = pid
        return found

    def wait_for_step(self, step: int, ranks: int = 2) -> None:
        """Until every rank of the newest attempt has done `step` steps."""
        wait_until(lambda: all(self.beat(rank).step or 0 for rank in range(ranks)) and self._least(ranks) >= step)

    def wait_for_stage(self, stage: str, rank: int) -> None:
        """Until a rank is in `stage`."""
        wait_until(lambda: self.beat(rank).stage == stage)

    def beat(self, rank: int) -> Beat:
        """The newest beat of a rank."""
        attempts = self.run_dir.attempts()
        return (Beat.load(attempts[-1].beat(rank)) if attempts else None) or Beat(stage="", time_ns=0)

    def send(self, number: signal.Signals, rank: int | None = None) -> None:
        """Signal the launcher, or a rank."""
        self.hit = time.monotonic()
        os.kill(self.process.pid if rank is None else self.pids()[rank], number)

    def send_again(self, number: signal.Signals) -> None:
        """Signal the launcher once more, after it has said that it heard the first signal."""
        wait_until(lambda: "stopping   " in self.output.read_text(encoding="utf-8"), 10)
        wait_until(lambda: time.monotonic() - self.hit > REPEAT_SECONDS)
        os.kill(self.process.pid, number)

    def note_hit(self) -> None:
        """The fault happens now."""
        self.hit = time.monotonic()

    def _least(self, ranks: int) -> int:
        return min(self.beat(rank).step or 0 for rank in range(ranks))


def faulty_model(llama: Path, folder: Path) -> Path:
    """A copy of a Llama that carries its own, misbehaving code."""
    shutil.copytree(llama, folder)
    shutil.copy(Path(__file__).parent / "faulty_model.py", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "faulty_model.FaultyLlama"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def settings(model: Path, data: Path, output_dir: Path, **launch: Any) -> dict[str, Any]:
    """A run of 60 steps on two ranks, a checkpoint every 2, without a benchmark."""
    return {
        "model": {"name": str(model), "trust_remote_code": True},
        "data": {"source": str(data), "held_out": 0, "max_length": 64},
        "lora": {"r": 2, "lora_dropout": 0.0},
        "training": {"max_steps": 60, "batch_size": 2, "global_batch_size": 4, "log_every": 1, "save_every": 2},
        "benchmark": {"num_prompts": 0},
        "launch": {"cpu_procs": 2, "precision": "fp32", **launch},
        "output_dir": str(output_dir),
    }


def start(
    run_file: Path, values: dict[str, Any], fault: dict[str, Any], *words: str, terminal: int | None = None
) -> Run:
    """Start `lft launch` on `values`, with FAULT in its environment and more words.

    What it says goes to a file, or to a terminal, which then is the one it is controlled by.
    """
    run_file.write_text(json.dumps(values), encoding="utf-8")
    mark = uuid.uuid4().hex

    def prepare() -> None:
        hear_interrupts()
        if terminal is not None:
            os.setsid()
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

    path = run_file.with_suffix(".out")
    with path.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "lft.cli.main", "launch", str(run_file), *words],
            env=os.environ | {MARK: mark, "FAULT": json.dumps(fault)},
            stdin=subprocess.DEVNULL,
            stdout=stream if terminal is None else terminal,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=prepare,
        )
    return Run(process, RunDir(Path(values["output_dir"])), mark, path)


def hear_interrupts() -> None:
    """A shell's background job ignores SIGINT, and so would everything it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def end(run: Run) -> Run:
    """Wait until the launcher and everything it started has stopped; note how."""
    run.exit_code = run.process.wait(DEADLINE_SECONDS)
    try:
        wait_until(lambda: not marked(run.mark), 15)
    except TimeoutError:
        run.left = marked(run.mark)
    run.seconds = time.monotonic() - (run.hit or run.started)
    run.text = run.output.read_text(encoding="utf-8")
    return run


def marked(mark: str) -> list[int]:
    """Processes that carry the mark in their environment, except zombies."""
    wanted = f"{MARK}={mark}".encode()
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if wanted in _read(pid, "environ")]


def environment(pid: int) -> dict[str, str]:
    """The environment a process was started with."""
    pairs = (item.partition(b"=") for item in _read(pid, "environ").split(b"\0") if b"=" in item)
    return {name.decode(): value.decode(errors="replace") for name, _, value in pairs}


def command(pid: int) -> bytes:
    """The command line of a process."""
    return _read(pid, "cmdline")


def wait_until(is_so: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
    """Poll until something is so. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so within {seconds} s")
        time.sleep(POLL_SECONDS)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
