"""lft benchmark on an adapter that lft has not made: the same scores on any number of ranks, and after an interruption."""

import json
import re
import signal
import subprocess
import sys
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


@pytest.fixture
def adapter(tiny_models: TinyModels, tmp_path: Path) -> Path:
    """A folder as plain peft saves it."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_models.llama)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(demo_lines(14)), encoding="utf-8")
    return path


def benchmark(*words: str | Path | int, cwd: Path) -> dict[str, Any]:
    """`lft benchmark` of the folder `adapter` on `rows.jsonl`, to its end; the report it wrote, but for the times."""
    done = run_lft("benchmark", "adapter", "--dataset", "rows.jsonl", *words, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((cwd / "adapter-benchmark" / "run" / "report.json").read_text(encoding="utf-8"))
    return {name: report["benchmark"][name] for name in MEASURED} | {"said": done.stdout}


def settings(**values: int | str) -> list[str]:
    return [word for name, value in values.items() for word in ("--set", f"benchmark.{name}={value}")]


def test_an_adapter_of_plain_peft_scores_the_same_on_any_number_of_ranks_as_rouge_score_says(
    adapter: Path, rows: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    script = tmp_path / "mine.py"
    script.write_text(METRIC.replace("BODY", "return {'length': [float(len(text)) for text in predictions]}"))
    asked = settings(max_new_tokens=40, batch_size=3, metrics='["rouge", "mine.py"]')
    found = [benchmark("--cpu-procs", ranks, *asked, cwd=tmp_path) for ranks in (1, 2, 3)]
    for other in found[1:]:
        assert {name: other[name] for name in MEASURED} == {name: found[0][name] for name in MEASURED}
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == before, "it is only read"

    run_dir = RunDir(tmp_path / "adapter-benchmark")
    lines = (run_dir.attempts()[-1].answers).read_text(encoding="utf-8").splitlines()
    answers = [json.loads(line) for line in lines]
    assert len(answers) == found[0]["prompts"] == 14
    assert answers[:8] == found[0]["samples"]
    assert any(answer["base"] != answer["tuned"] for answer in answers)
    scorer = RougeScorer(NAMES, use_stemmer=True)
    for name in NAMES:
        each = {
            model: [scorer.score(answer["reference"], answer[model])[name].fmeasure for answer in answers]
            for model in ("base", "tuned")
        }
        assert found[0]["difference"][name] == paired_difference(each["base"], each["tuned"]).to_dict()
        assert found[0]["tuned"][name] == pytest.approx(sum(each["tuned"]) / 14, abs=1e-15)
    assert found[0]["tuned"]["length"] == sum(len(answer["tuned"]) for answer in answers) / 14
    assert not (tmp_path / "adapter-benchmark" / "README.md").exists(), "the card belongs to the adapter"
    assert not run_dir.answers.exists()


def test_a_benchmark_that_is_interrupted_goes_on_with_what_was_answered(
    adapter: Path, rows: Path, tmp_path: Path
) -> None:
    asked = ["--cpu-procs", "2", *settings(max_new_tokens=100, batch_size=1)]
    whole = benchmark(*asked, cwd=tmp_path)
    command = [sys.executable, "-m", "lft.cli.main", "benchmark", "adapter", "--dataset", "rows.jsonl", *asked]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        parts = RunDir(tmp_path / "adapter-benchmark").answers
        wait_for(lambda: len(list(parts.glob("*/base-*.jsonl"))) > 2, 100)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 75, said
    assert f"lft benchmark {adapter} --dataset {rows} --output-dir {adapter}-benchmark" in said
    again = benchmark(*asked, cwd=tmp_path)
    kept = re.search(r"benchmark +(\d+) of 28 batches are answered already", again["said"])
    assert kept, again["said"]
    assert 2 < int(kept[1]) < 28
    assert {name: again[name] for name in MEASURED} == {name: whole[name] for name in MEASURED}


def test_a_metric_that_fails_costs_no_answer(adapter: Path, rows: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METRIC.replace("BODY", "return {'x': 1 / 0}"), encoding="utf-8")
    asked = ["--cpu-procs", 1, *settings(max_new_tokens=8, metrics='["mine.py"]')]
    failed = run_lft("benchmark", "adapter", "--dataset", "rows.jsonl", *asked, cwd=tmp_path)
    assert failed.returncode == 3, failed.stdout
    assert "mine.py failed: ZeroDivisionError" in failed.stdout
    (tmp_path / "mine.py").write_text(METRIC.replace("BODY", "return {'x': 1.0}"), encoding="utf-8")
    mended = benchmark(*asked, cwd=tmp_path)
    assert "2 of 2 batches are answered already" in mended["said"]
    assert "loading the model" not in mended["said"]
    assert mended["tuned"]["x"] == 1.0
