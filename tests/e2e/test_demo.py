"""The embedded example: a real model, real definitions, two ranks."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import run_lft


def run_demo(folder: Path, *changes: str, timeout_seconds: float) -> dict[str, Any]:
    """`lft launch --demo`; its report."""
    done = run_lft(
        "launch", "--demo", "--output-dir", folder, *changes, cwd=folder.parent, timeout_seconds=timeout_seconds
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))
    return report


def test_the_demo_trains_and_compares_the_real_model_on_two_ranks(tmp_path: Path) -> None:
    shorter = ("--set", "training.max_steps=3", "--set", "benchmark.num_prompts=8")
    report = run_demo(tmp_path / "demo", *shorter, timeout_seconds=400)
    assert report["training"]["parameters"] == 135_436_608
    assert len(report["training"]["peak_memory_bytes_by_rank"]) == 2
    assert report["benchmark"]["prompts"] == 8
    assert report["benchmark"]["difference"]["loss"]["mean"] < 0


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_the_whole_demo_lowers_held_out_loss_and_raises_rouge_by_more_than_chance(tmp_path: Path) -> None:
    benchmark = run_demo(tmp_path / "demo", timeout_seconds=1700)["benchmark"]
    assert benchmark["prompts"] >= 100
    assert benchmark["difference"]["loss"]["high"] < 0
    assert benchmark["difference"]["rougeL"]["low"] > 0
    assert len(benchmark["samples"]) == 8
