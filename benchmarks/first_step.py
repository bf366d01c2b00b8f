"""From the command to the first step of training: `lft launch` beside torchrun and `accelerate launch` with the same worker.

`python -m benchmarks.first_step [RUNS] [MODEL] [DATA]` starts two CPU ranks with each launcher in turn, in one session, from
the same settings, and prints medians; also the most memory the launcher's own process held. Without MODEL a tiny Llama is
made; the demo's model shows what a real one adds. A second table says where the time of `lft launch` goes, by rank 0's events.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lft.core.beat import Beat
from lft.core.files import write_text
from lft.core.hardware import look_at_machine
from lft.core.settings import RunSettings
from lft.plan.launch_plan import LaunchPlan, make_plan
from tests.conftest import demo_lines, make_llama

POLL_SECONDS = 0.005
DEADLINE_SECONDS = 300.0
STEPS = 3
SCRIPTS = Path(sys.executable).parent


def main(words: list[str]) -> None:
    """Print the table."""
    runs = int(words[0]) if words else 5
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model, data = Path(words[1]) if len(words) > 1 else scratch / "llama", scratch / "rows.jsonl"
        if len(words) < 2:
            make_llama(model)
        data.write_text("\n".join(demo_lines(200)), encoding="utf-8")
        data = Path(words[2]) if len(words) > 2 else data
        launchers: dict[str, Callable[[LaunchPlan], list[str]]] = {
            "lft launch": lambda plan: [sys.executable, "-m", "lft.cli.main", "launch", str(plan.run_dir.settings)],
            "torchrun": lambda plan: [str(SCRIPTS / "torchrun"), "--standalone", "--nproc-per-node=2", *worker(plan)],
            "accelerate launch": lambda plan: [
                *(str(SCRIPTS / "accelerate"), "launch", "--config_file"),
                *(str(plan.run_dir.run / "launch_configs" / "accelerate.yaml"), *worker(plan)),
            ],
        }
        measured: dict[str, list[tuple[float, int]]] = {name: [] for name in launchers}
        parts: list[dict[str, float]] = []
        for turn in range(runs + 1):
            for name, command in launchers.items():
                plan = written_plan(model, data, scratch / f"{name} {turn}")
                started = time.time()
                found = measure(command(plan), plan)
                if turn and name == "lft launch":
                    parts.append(stages(plan, started))
                if turn:  # the first fills the caches
                    measured[name].append(found)
    table(measured, runs)
    print("\n| until the first step, rank 0 | median |\n|---|---|")
    for part in parts[0]:
        print(f"| {part} | {statistics.median(each[part] for each in parts):.2f} s |")


def stages(plan: LaunchPlan, started: float) -> dict[str, float]:
    """Seconds in each stage of rank 0, from the command to the end of its first step; `started` since the epoch."""
    lines = (plan.run_dir.events / "rank-0.jsonl").read_text(encoding="utf-8").splitlines()
    events = [event for event in map(json.loads, lines) if event["kind"] in ("stage", "step")]
    first = next(number for number, event in enumerate(events) if event["kind"] == "step")
    names = ["launcher, interpreter", *(event["data"]["name"] for event in events[:first])]
    times = [started, *(event["time"] for event in events[: first + 1])]
    return {name: after - before for name, before, after in zip(names, times, times[1:], strict=False)}


def worker(plan: LaunchPlan) -> list[str]:
    """The same worker and order for every launcher."""
    return ["-m", "lft.train.worker", str(plan.attempt_dir.order("train"))]


def written_plan(model: Path, data: Path, output_dir: Path) -> LaunchPlan:
    """The plan of a short run, with its files."""
    settings = RunSettings.model_validate(
        {
            "model": {"name": str(model)},
            "data": {"source": str(data), "held_out": 0, "max_length": 128},
            "training": {"max_steps": STEPS, "global_batch_size": 8},
            "launch": {"cpu_procs": 2, "precision": "fp32"},
            "benchmark": {"num_prompts": 0},
            "output_dir": output_dir,
        }
    )
    plan = make_plan(settings, look_at_machine())
    for name, text in plan.files().items():
        write_text(output_dir / name, text)
    return plan


def measure(command: list[str], plan: LaunchPlan) -> tuple[float, int]:
    """Seconds until every rank has done a step, and the launcher's peak resident bytes."""
    started = time.monotonic()
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    with (plan.run_dir.run / "launcher.log").open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    seconds, peak = 0.0, 0
    while process.poll() is None:
        # lft launch counts attempts on: the one written here is its attempt 0, its own the next
        beats = [Beat.load(attempt.beat(rank)) for attempt in plan.run_dir.attempts()[-1:] for rank in range(2)]
        if not seconds and beats and all(beat and beat.step for beat in beats):
            seconds = time.monotonic() - started
        peak = max(peak, peak_resident_bytes(process.pid))
        if time.monotonic() - started > DEADLINE_SECONDS:
            process.kill()
        time.sleep(POLL_SECONDS)
    if process.returncode or not seconds:
        sys.exit(
            f"{json.dumps(command)} ended with {process.returncode}: see {stream.name}\n{Path(stream.name).read_text()}"
        )
    return seconds, peak


def peak_resident_bytes(pid: int) -> int:
    """VmHWM of a process; 0 where it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def table(measured: dict[str, list[tuple[float, int]]], runs: int) -> None:
    """Medians, and ratios to the first."""
    first = statistics.median(seconds for seconds, _ in measured["lft launch"])
    print(f"| launcher ({runs} runs each, in turn) | first step, median | min to max | x lft | launcher's own memory |")
    print("|---|---|---|---|---|")
    for name, found in measured.items():
        seconds = [each for each, _ in found]
        median, peak = statistics.median(seconds), max(bytes_ for _, bytes_ in found) / 2**20
        spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
        print(f"| {name} | {median:.2f} s | {spread} | {median / first:.2f} | {peak:.0f} MiB |")


if __name__ == "__main__":
    main(sys.argv[1:])
