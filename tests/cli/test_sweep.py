"""Sweeps: which runs lists of values make, mistakes of all of them at once, results, going on, failures in between."""

import json
from pathlib import Path
from typing import Any

import pytest

from lft.cli.main import run
from lft.demo.tiny import make_tiny
from lft.plan.sweep import expand, run_names
from tests.conftest import run_lft

HEAD = "model: {{name: {model}}}\ndata: {{source: {data}, held_out: 6, max_length: 64}}\noutput_dir: {out}\n"
SMALL = (
    "training: {max_steps: 2, batch_size: 2, global_batch_size: 4}\nbenchmark: {num_prompts: 4, max_new_tokens: 4}\n"
)


def test_lists_make_every_combination_and_names_to_read() -> None:
    runs = expand({"lora.r": [8, 16], "lora.target_modules": ["auto", ["q_proj", "v_proj"]], "lora.use_dora": [True]})
    assert len(runs) == 4
    assert run_names(runs)[1:3] == [
        "r-8_target_modules-q_proj+v_proj_use_dora-true",
        "r-16_target_modules-auto_use_dora-true",
    ]
    assert run_names(expand({"data.revision": ["a/b", "a b"], "model.revision": [None]})) == [
        "data.revision-a-b_model.revision-none-0",
        "data.revision-a-b_model.revision-none-1",
    ]


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    path, (model, data) = tmp_path / "run.yaml", make_tiny(tmp_path / "tiny")
    path.write_text(HEAD.format(model=model, data=data, out=tmp_path / "out") + SMALL)
    return path


def swept(path: Path, section: str) -> Path:
    path.write_text(path.read_text() + f"sweep:\n{section}")
    return path


def test_all_mistakes_of_all_runs_are_told_before_the_first_starts(
    sweep_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = swept(
        sweep_file, "  lora.r: [8, 0]\n  lora.rank: [1]\n  lora.target_modules: [q_proj, v_proj]\n  output_dir: [a]\n"
    )
    assert run(["sweep", str(path)]) == 2
    told = capsys.readouterr().err
    for words in (
        "lora.r is 0; an integer from 1 to 1024",
        "lora.rank is not a setting; known here: r,",
        'lora.target_modules is "q_proj"',
        "sweep.output_dir  is the same for all runs",
    ):
        assert words in told
    assert not (tmp_path / "out").exists()


def test_one_run_of_a_file_that_describes_several_is_refused_with_what_to_type(
    sweep_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plan", str(swept(sweep_file, "  lora.r: [8, 16]\n"))]) == 2
    assert "sweep describes several runs" in capsys.readouterr().err
    assert run(["sweep", str(sweep_file), "--set", "sweep={}"]) == 2
    assert "has no sweep: section" in capsys.readouterr().err


def test_a_dry_run_shows_every_run_and_what_it_would_take(
    sweep_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = swept(sweep_file, "  lora.r: [4, 8]\n  training.max_steps: [2, 3]\n")
    assert run(["sweep", str(path), "--dry-run", "--cpu-procs", "1"]) == 0
    told = capsys.readouterr().out
    assert "4 runs in" in told
    assert "r-8_max_steps-3  3 steps on 1 rank" in told
    assert "GB per rank" in told
    assert not (tmp_path / "out").exists()


def test_a_sweep_goes_on_after_a_failed_run_skips_finished_ones_and_sorts_its_results(
    sweep_file: Path, tmp_path: Path
) -> None:
    path = swept(sweep_file, "  lora.init_lora_weights: [pissa]\n  lora.r: [128, 4, 2]\n")
    options = ("--cpu-procs", 1, "--precision", "fp32")
    first = run_lft("sweep", path, *options, cwd=tmp_path)
    assert first.returncode == 64, first.stdout + first.stderr
    assert first.stdout.count(" of 3: ") == 3
    assert "pissa finds at most 64 ranks in this model" in first.stdout + first.stderr
    found: dict[str, Any] = json.loads((tmp_path / "out" / "sweep.json").read_text())
    losses = [row["metrics"].get("loss") for row in found["runs"]]
    assert losses[:2] == sorted(losses[:2])
    assert losses[2] is None
    assert "lft why" in found["runs"][2]["state"]
    again = run_lft("sweep", path, *options, "--by", "rougeL", cwd=tmp_path)
    assert again.stdout.count(" of 3: ") == 1, again.stdout + again.stderr
    assert again.stdout.count("  finished") == 2
    shown = run_lft("sweep", path, "--results", "--by", "rougeL", cwd=tmp_path).stdout
    rows = json.loads((tmp_path / "out" / "sweep.json").read_text())["runs"]
    scores = [row["metrics"]["rougeL"] for row in rows[:2]]
    assert scores == sorted(scores, reverse=True)
    assert all(row["run"] in shown for row in rows)
