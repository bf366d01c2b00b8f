"""Running out of memory for real: the last line is a command that goes on with the same steps, and fits."""

import json
import resource
import shlex
import subprocess
import sys
from pathlib import Path

from lft.core.errors import DONE, OUT_OF_MEMORY
from lft.core.run_dir import RunDir
from tests.conftest import TinyModels

ROOM_BYTES = 1100 * 2**20
"""Of memory that no file backs. A rank has some 400 MB before it trains; 256 rows of 256 tokens need 1,000 more."""


def lft(arguments: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """A command that, with its ranks, can have no more than that; each process for itself."""
    return subprocess.run(
        [sys.executable, "-m", "lft.cli.main", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (ROOM_BYTES, ROOM_BYTES)),
    )


def test_the_command_that_is_printed_finishes_a_run_that_ran_out_of_memory_with_the_same_steps(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    rows = "".join(json.dumps({"text": f"{number} bdfghjk 0123 " * 90}) + "\n" for number in range(256))
    (tmp_path / "rows.jsonl").write_text(rows)
    settings = {
        "model": {"name": str(tiny_models.llama)},
        "data": {"source": "rows.jsonl", "max_length": 256, "held_out": 0},
        "training": {"max_steps": 1, "batch_size": 256, "global_batch_size": 256},
        "launch": {"gpus": 0, "cpu_procs": 1, "precision": "fp32"},
        "output_dir": "out",
    }
    (tmp_path / "run.yaml").write_text(json.dumps(settings))
    failed = lft(["launch", "run.yaml"], tmp_path)
    assert failed.returncode == OUT_OF_MEMORY, failed.stdout + failed.stderr
    assert "rank 0 failed at step 1, while training" in failed.stdout
    typed = next(line.split(maxsplit=1)[1] for line in failed.stdout.splitlines() if line.startswith("  next "))
    command, _, figures = typed.partition("   predicted ")
    assert "GB per rank" in figures
    assert "--set training.global_batch_size=256" in command
    resumed = lft(shlex.split(command)[1:], tmp_path)
    assert resumed.returncode == DONE, resumed.stdout + resumed.stderr
    training = json.loads(RunDir(tmp_path / "out").report.read_text())["training"]
    assert (training["steps"], training["global_batch_size"]) == (1, 256)
    assert training["predicted_memory_bytes"] > 0
