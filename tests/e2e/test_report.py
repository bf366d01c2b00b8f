"""The page of a real run: what its ranks measured, what TensorBoard was told, and a program on it that runs as it stands."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lft.core.run_dir import RunDir
from tests.conftest import TinyModels, demo_lines, run_lft
from tests.e2e.test_launch import write_run_file
from tests.train.test_trackers import scalars


def test_a_run_ends_with_its_page_and_tells_tensorboard_what_its_report_says(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(demo_lines(72)), encoding="utf-8")
    run_dir = RunDir(tmp_path / "out")
    training = {"max_steps": 4, "log_every": 1, "evaluate_every": 2, "trackers": ["tensorboard"]}
    run_file = write_run_file(tmp_path / "run.yaml", tiny_models.llama, rows, run_dir.output_dir, training=training)
    done = run_lft("launch", run_file, "--cpu-procs", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "problem" not in done.stdout
    assert f"report     {run_dir.page}" in done.stdout.replace("\n", "")

    training_report = json.loads(run_dir.report.read_text(encoding="utf-8"))["training"]
    told = scalars(run_dir.tensorboard)
    assert len(list(run_dir.tensorboard.iterdir())) == 1, "of two ranks, one tells"
    for tag, key, entries in (
        ("train/loss", "loss", training_report["losses"]),
        ("eval/loss", "held_out_loss", training_report["held_out_losses"]),
    ):
        assert dict(told[tag]) == pytest.approx({entry["step"]: entry[key] for entry in entries}, rel=1e-6)
        assert len(entries) == {"train/loss": 4, "eval/loss": 2}[tag]

    page = run_dir.page.read_text(encoding="utf-8")
    assert '<span class="state done">' in page
    for entry in training_report["losses"]:
        assert f"training loss, step {entry['step']}: {entry['loss']:.3f}" in page
    assert run_dir.loss_picture.read_bytes().startswith(b"\x89PNG")

    (program,) = re.findall(r"<code>(from peft.*?)</code>", page, flags=re.DOTALL)
    question = html.unescape(program)
    answered = subprocess.run([sys.executable, "-c", question], capture_output=True, text=True, check=False)
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.strip()
