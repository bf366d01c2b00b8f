"""lft benchmark on an adapter that lft has not made: the same scores on any number of ranks, and after an interruption."""

import json
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForCausalLM

from lft.core.run_dir import RunDir
from lft.publish.significance import paired_difference
from tests.conftest import TinyModels, demo_lines, run_lft
from tests.runs import wait_for
from tests.train.test_scoring import METRIC

MEASURED = ("base", "tuned", "difference", "samples", "generated", "prompts")
NAMES = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
ROWS = 14
ASKED = ("max_new_tokens=60", "batch_size=2", 'metrics=["rouge", "mine.py"]')
WORDS = ["benchmark", "adapter", "--dataset", "rows.jsonl", *(f"--set=benchmark.{each}" for each in ASKED)]


@dataclass(frozen=True)
class Alone:
    """What one rank has done: with a metric that fails, and when that was mended."""

    folder: Path
    before: dict[str, bytes]
    failed: subprocess.CompletedProcess[str]
    mended: subprocess.CompletedProcess[str]
    measured: dict[str, Any]


@pytest.fixture(scope="module")
def alone(tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """A folder with an adapter as plain peft saves it, benchmarked on one rank."""
    folder = tmp_path_factory.mktemp("benchmark")
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_models.llama)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(str(folder / "adapter"))
    (folder / "rows.jsonl").write_text("\n".join(demo_lines(ROWS)), encoding="utf-8")
    before = {path.name: path.read_bytes() for path in (folder / "adapter").iterdir()}
    (folder / "mine.py").write_text(METRIC.replace("BODY", "return {'x': 1 / 0}"), encoding="utf-8")
    failed = run_lft(*WORDS, "--cpu-procs", 1, cwd=folder)
    body = "return {'length': [float(len(text)) for text in predictions]}"
    (folder / "mine.py").write_text(METRIC.replace("BODY", body), encoding="utf-8")
    mended = run_lft(*WORDS, "--cpu-procs", 1, cwd=folder)
    return Alone(folder, before, failed, mended, measured(mended, folder))


def measured(done: subprocess.CompletedProcess[str], folder: Path) -> dict[str, Any]:
    """The report of a benchmark that is done, but for the times."""
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "adapter-benchmark" / "run" / "report.json").read_text(encoding="utf-8"))
    return {name: report["benchmark"][name] for name in MEASURED}


def test_a_metric_that_fails_costs_no_answer(alone: Alone) -> None:
    assert alone.failed.returncode == 3, alone.failed.stdout + alone.failed.stderr
    assert "mine.py failed: ZeroDivisionError" in alone.failed.stdout
    assert "14 of 14 batches are answered already" in alone.mended.stdout
    assert "loading the model" not in alone.mended.stdout


def test_an_adapter_of_plain_peft_is_only_read_and_scored_as_rouge_score_says(alone: Alone) -> None:
    assert {path.name: path.read_bytes() for path in (alone.folder / "adapter").iterdir()} == alone.before
    run_dir = RunDir(alone.folder / "adapter-benchmark")
    assert not run_dir.answers.exists()
    assert not (run_dir.output_dir / "README.md").exists(), "the card belongs to the adapter"
    lines = run_dir.attempts()[1].answers.read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line) for line in lines]
    found = alone.measured
    assert len(answers) == found["prompts"] == ROWS
    assert answers[:8] == found["samples"]
    assert any(answer["base"] != answer["tuned"] for answer in answers)
    scorer = RougeScorer(NAMES, use_stemmer=True)
    for name in NAMES:
        each = {
            model: [scorer.score(answer["reference"], answer[model])[name].fmeasure for answer in answers]
            for model in ("base", "tuned")
        }
        assert found["difference"][name] == paired_difference(each["base"], each["tuned"]).to_dict()
        assert found["tuned"][name] == pytest.approx(sum(each["tuned"]) / ROWS, abs=1e-15)
    assert found["tuned"]["length"] == sum(len(answer["tuned"]) for answer in answers) / ROWS


def test_three_ranks_score_as_one_does_to_the_last_digit(alone: Alone) -> None:
    assert measured(run_lft(*WORDS, "--cpu-procs", 3, cwd=alone.folder), alone.folder) == alone.measured


def test_two_ranks_that_are_interrupted_go_on_with_what_was_answered_and_score_as_one_does(alone: Alone) -> None:
    command = [sys.executable, "-m", "lft.cli.main", *WORDS, "--cpu-procs", "2"]
    with subprocess.Popen(command, cwd=alone.folder, stdout=subprocess.PIPE, text=True) as process:
        parts = RunDir(alone.folder / "adapter-benchmark").answers
        wait_for(lambda: len(list(parts.glob("*/base-*.jsonl"))) > 1 or process.poll() is not None, 200)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=100)[0]
    assert process.returncode == 75, said
    adapter = alone.folder / "adapter"
    again = re.search(r"next +lft (benchmark .*)", said)
    assert again, said
    assert again[1].startswith(f"benchmark {adapter} --dataset {alone.folder / 'rows.jsonl'} --model ")
    done = run_lft(*shlex.split(again[1]), "--cpu-procs", 2, cwd=alone.folder)
    assert measured(done, alone.folder) == alone.measured
    kept = re.search(r"benchmark +(\d+) of 14 batches are answered already", done.stdout)
    assert kept, done.stdout
    assert 1 < int(kept[1]) < 14
