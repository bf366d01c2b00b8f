"""A run of two attempts as its writers leave it, with made-up numbers: what its page is made from, without training."""

import json
import math
import random
import time
from pathlib import Path
from typing import Any

from lft.core.files import write_text
from lft.core.order import WorkerReport
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.launch.outcome import Outcome
from lft.plan.launch_plan import LaunchPlan, make_plan
from lft.plan.memory import MemoryPrediction
from lft.publish.report import make_report, write_report
from tests.runs import MACHINE

MEMORY = MemoryPrediction(
    weights=270 * 10**6,
    adapters=4 * 10**6,
    gradients=8 * 10**6,
    optimizer=8 * 10**6,
    activations=620 * 10**6,
    logits=90 * 10**6,
    framework=590 * 10**6,
    loading=0,
    available=4 * 2**30,
    unit="rank",
)
AUDIT = {
    "rows": 972,
    "held_out": 128,
    "tokens": 44_695,
    "trained": 9_359,
    "masked": 0,
    "cut": 12,
    "whole_without_end": 0,
    "begin_doubled": 0,
    "duplicates": 3,
    "leaked": 0,
    "shared_prompts": 0,
    "empty": 1,
    "bad": 1,
    "bad_places": ["rows.jsonl:17: not JSON"],
    "longest": [{"place": "rows.jsonl:812", "tokens": 164}],
    "length_for_most": 96,
    "pad_is_end": True,
    "is_capped": False,
}
SAMPLES = [
    {
        "prompt": 'Define the noun "tissue".',
        "reference": "part of an organism consisting of an aggregate of cells having a similar structure and function",
        "base": "Tissue is a group of cells that work together. There are four types of tissue in the human body: epithelial, "
        "connective, muscle and nervous tissue.",
        "tuned": "a part of an organism made of cells that have a similar structure",
    },
    {
        "prompt": 'Define the noun "ledger".',
        "reference": "a record of commercial accounts",
        "base": "",
        "tuned": "a book",
    },
]


def difference(base: float, tuned: float, half: float) -> dict[str, Any]:
    """As the benchmark measures it."""
    mean = tuned - base
    return {"mean": mean, "low": mean - half, "high": mean + half, "significant": abs(mean) > half}


SCORES = {
    "loss": (3.914, 2.731, 0.09),
    "perplexity": (50.1, 15.35, 6.2),
    "rouge1": (0.214, 0.327, 0.024),
    "rouge2": (0.061, 0.118, 0.021),
    "rougeL": (0.181, 0.302, 0.022),
    "exact_match": (0.0, 0.008, 0.012),
}
BENCHMARK: dict[str, Any] = {
    "prompts": 128,
    "base": {name: base for name, (base, _, _) in SCORES.items()},
    "tuned": {name: tuned for name, (_, tuned, _) in SCORES.items()},
    "difference": {name: difference(*score) for name, score in SCORES.items()},
    "samples": SAMPLES,
}


def make_run(
    output_dir: Path,
    *,
    steps: int = 120,
    ends: bool = True,
    seed: int = 0,
    benchmark: dict[str, Any] = BENCHMARK,
    **sections: Any,
) -> RunDir:
    """A run that was stopped at half its steps, went on from a tenth before, and has ended, or is not heard of since."""
    values: dict[str, Any] = {"model": {"name": "someone/model-135m"}, "data": {"source": "someone/rows"}}
    sections = {"launch": {"cpu_procs": 2}, "training": {"log_every": 1}} | sections
    settings = RunSettings.model_validate(values | sections | {"output_dir": output_dir})
    half, again = steps // 2, steps * 2 // 5
    first = _attempt(settings, None)
    _events(first, 0, half, steps, seed)
    now = time.time_ns()
    stopped = f"stopped after step {half} of {steps}; checkpoint-{half} is saved"
    Outcome(exit_code=130, stopped=stopped, took="1.8 s after SIGINT", ended_ns=now).save(first.attempt_dir.outcome)
    second = _attempt(settings, RunDir(output_dir).checkpoint(again))
    _events(second, again, steps if ends else steps * 3 // 4, steps, seed)
    if ends:
        _end(second, steps, benchmark)
    return RunDir(output_dir)


def training_metrics(steps: int) -> dict[str, Any]:
    """What rank 0 reports of its training."""
    return {
        "peak_memory_bytes": 1_540_000_000,
        "steps": steps,
        "seconds": 80.0,
        "tokens_per_second": 1512.3,
        "trained_tokens_per_second": 316.0,
        "padding": 0.034,
        "mfu": 0.41,
        "global_batch_size": 32,
        "precision": "bf16",
        "trainable_parameters": 460_800,
        "parameters": 134_975_808,
        "data": AUDIT,
    }


def _attempt(settings: RunSettings, resume_from: Path | None) -> LaunchPlan:
    plan = make_plan(settings, MACHINE, attempt=RunDir(settings.output_dir).next_attempt().number)
    plan = plan.model_copy(update={"resume_from": resume_from, "memory": MEMORY})
    for name, text in plan.files().items():
        write_text(settings.output_dir / name, text)
    who = {"pid": 4711, "host": "gpu-a2", "started_ns": time.time_ns() - 120 * 10**9, "node": 0}
    write_text(plan.attempt_dir.launcher, json.dumps(who))
    return plan


def _events(plan: LaunchPlan, first: int, last: int, total: int, seed: int) -> None:
    """Those of rank 0 from one step to another; a loss is measured after every step."""
    path, noise = plan.run_dir.events / "rank-0.jsonl", random.Random(seed + first)
    path.parent.mkdir(parents=True, exist_ok=True)
    events: list[tuple[str, dict[str, Any]]] = [("stage", {"name": "training"}), ("total", {"steps": total})]
    for step in range(first, last + 1):
        made = step - first
        done: dict[str, Any] = {"seconds": 1.1 * made, "memory_bytes": 10**9, "flops": None}
        done |= {"tokens": 1_600 * made, "trained_tokens": 330 * made, "places": 1_650 * made}
        events.append(("step", {"step": step, "total": total} | done))
        if step > first:
            loss = 2.6 + (0.2 + 0.1 * seed) * noise.random() + 1.6 * math.exp(-step / 20)
            rate = plan.settings.training.learning_rate * (1 - step / total)
            events.append(("log", {"step": step, "total": total, "loss": loss, "learning_rate": rate}))
        if step > first and step % max(1, total // 8) == 0:
            events.append(("evaluated", {"step": step, "held_out_loss": 2.75 + 1.5 * math.exp(-step / 25)}))
    lines = [{"writer": "rank-0", "kind": kind, "data": data, "time": time.time()} for kind, data in events]
    with path.open("a", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)


def _end(plan: LaunchPlan, steps: int, benchmark: dict[str, Any]) -> None:
    """Adapter, reports, report.json and outcome."""
    run_dir, attempt = plan.run_dir, plan.attempt_dir
    run_dir.adapter_config.write_text('{"r": 8}')
    metrics = [training_metrics(steps), {"peak_memory_bytes": 1_490_000_000}]
    for rank, each in enumerate(metrics):
        WorkerReport(ok=True, rank=rank, stage="", metrics=each).save(attempt.report("train", rank))
    write_report(run_dir, make_report(plan.settings, metrics, [{"benchmark": benchmark}], MEMORY.total))
    Outcome(exit_code=0, ended_ns=time.time_ns()).save(attempt.outcome)
