"""How long the launcher's own work takes for a large world: the plan of 8,192 ranks, and who failed among them.

    python benchmarks/scale.py [NODES] [GPUS]

Plan: settings and a machine that need not exist to the plan's whole JSON, and back. Triage: the first cause among the
failure files of all ranks, of which one is the cause and the others lost their connection.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lft.core.hardware import Gpu, Machine
from lft.core.order import WorkerReport
from lft.core.run_dir import Attempt
from lft.core.settings import RunSettings
from lft.launch.ranks import Exit
from lft.launch.supervisor import Ended
from lft.launch.triage import find_failure
from lft.plan.document import plan_document
from lft.plan.launch_plan import LaunchPlan, make_plan

Result = TypeVar("Result")
TRACEBACK = "Traceback (most recent call last):\n" + '  File "worker.py", line 100, in train\n    step(batch)\n' * 20


def timed(what: str, work: Callable[[], Result], runs: int = 3) -> Result:
    """Print the fastest and the slowest of `runs` runs."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    print(f"{what:52} {min(seconds):8.3f} s   to {max(seconds):.3f}")
    return result


def plan_of(nodes: int, gpus: int) -> LaunchPlan:
    """A plan for nodes of `gpus` GPUs each."""
    cards = [Gpu(token=str(index), name="H100", memory_bytes=80 * 2**30, computes_bf16=True) for index in range(gpus)]
    machine = Machine(gpus=tuple(cards), cpu_cores=96, memory_bytes=2**40, cpu_computes_bf16=True)
    values = {"model": {"name": "a/b"}, "data": {"source": "a/b"}, "launch": {"nodes": nodes}, "output_dir": "/runs/x"}
    return make_plan(RunSettings.model_validate(values), machine)


def failed_attempt(folder: Path, ranks: int) -> tuple[list[Exit], Attempt]:
    """An attempt in which one rank ran out of memory and all others lost it; every one left a report."""
    attempt = Attempt(folder / "attempt-0")
    attempt.failure(0).parent.mkdir(parents=True)
    cause = ranks // 3
    for rank in range(ranks):
        error = ValueError("the cause") if rank == cause else RuntimeError("Connection closed by peer")
        report = WorkerReport.of_failure(rank, "training", error, TRACEBACK)
        attempt.failure(rank).write_text(report.model_dump_json(indent=1), encoding="utf-8")
    return [Exit(rank, 64, by_us=False) for rank in range(ranks)], attempt


def main() -> None:
    """Print one line a task."""
    nodes, gpus = (int(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 2 else (1024, 8)
    ranks = nodes * gpus
    print(f"{nodes:,} nodes x {gpus} GPUs = {ranks:,} ranks")
    plan = timed("plan", lambda: plan_of(nodes, gpus))
    text = timed("plan as JSON, with argv and environment of each rank", lambda: plan_document(plan))
    again = timed(f"plan from its JSON ({len(text) / 1e6:.1f} MB)", lambda: LaunchPlan.model_validate_json(text))
    assert again == plan
    timed(f"files of the run ({max(map(len, plan.files().values())):,} bytes the largest)", plan.files)
    with tempfile.TemporaryDirectory() as folder:
        exits, attempt = failed_attempt(Path(folder), ranks)
        failure = timed(f"triage of {ranks:,} failure files", lambda: find_failure(Ended(exits, None, {}), attempt))
        assert failure is not None
        assert failure.ranks == (ranks // 3,)


if __name__ == "__main__":
    main()
