"""What is done to a run, and how it must end: the rows of the fault table."""

import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.faults import Run, end, settings, start

STEP = 5
Deed = Callable[[Run], None]


@dataclass(frozen=True)
class Scenario:
    """A fault, and what the launcher must make of it."""

    name: str
    exit_code: int
    says: tuple[str, ...]
    """Words of its last lines, in this order."""
    kind: str = ""
    """What rank 1 does to itself in the forward pass of step STEP; see faulty_model.py."""
    ranks: tuple[int, ...] = (1,)
    deed: Deed | None = None
    """What is done to the run from outside."""
    launch: dict[str, Any] = field(default_factory=dict)
    fault: dict[str, Any] = field(default_factory=dict)
    runs: str = "lft launch"


def after_step(step: int, *numbers: signal.Signals, rank: int | None = None) -> Deed:
    """Signal the launcher, or a rank, once every rank has done some steps; a second time when the first was heard."""

    def deed(run: Run) -> None:
        run.wait_for_step(step)
        run.send(numbers[0], rank)
        for number in numbers[1:]:
            run.send_again(number)

    return deed


def before_joining(run: Run) -> None:
    """Stop rank 1 while it reads the data: it will never join."""
    run.wait_for_stage("loading libraries", 1)
    run.send(signal.SIGSTOP, 1)


NAMES_RANK_1 = "rank 1 failed at step 5, while training; the other rank was stopped because of it"
SCENARIOS = (
    Scenario("exception on rank 1", 64, (NAMES_RANK_1, "ValueError: the tensors do not match"), "raise"),
    Scenario(
        "exception on rank 1, slow finally that closes its connections",
        64,
        (NAMES_RANK_1, "ValueError: the tensors do not match"),
        "raise, slow finally",
        fault={"clean_up_seconds": 6},
    ),
    Scenario(
        "exception on all ranks",
        64,
        ("ranks 0-1 failed at step 5, while training\n", "ValueError: the tensors do not match"),
        "raise",
        ranks=(0, 1),
    ),
    Scenario("sys.exit(0) on rank 1", 64, (NAMES_RANK_1, "SystemExit: 0"), "sys.exit(0)"),
    Scenario(
        "rank 1 leaves with 0, past Python",
        64,
        ("rank 1 at step 5, while training, left with exit code 0 before its job was done",),
        "os._exit(0)",
    ),
    Scenario(
        "segfault on rank 1",
        139,
        ("rank 1 at step 5, while training, was killed by SIGSEGV", "Fatal Python error: Segmentation fault"),
        "segfault",
    ),
    Scenario(
        "kill -9 of rank 1",
        137,
        ("rank 1 at step", "was killed by SIGKILL"),
        deed=after_step(2, signal.SIGKILL, rank=1),
    ),
    Scenario("kill -9 of the launcher", -9, (), deed=after_step(2, signal.SIGKILL)),
    Scenario("kill -9 of the launcher, rank 1 has a child", -9, (), "child", deed=after_step(4, signal.SIGKILL)),
    Scenario(
        "rank 1 hangs and ignores SIGTERM; SIGTERM",
        143,
        ("ranks 0-1 did not stop within 4 s and had to be killed; this step was not saved",),
        "ignore SIGTERM",
        deed=after_step(4, signal.SIGTERM),
        launch={"grace_seconds": 4},
    ),
    Scenario(
        "rank 1 hangs",
        65,
        ("rank 1 at step 5, while training, made no progress for", "the others wait for it", "faulty_model.py"),
        "hang",
        launch={"hang_timeout_seconds": 6},
    ),
    Scenario(
        "SIGSTOP of rank 1",
        65,
        ("rank 1 at step", "made no progress for", "its process is stopped (state T"),
        deed=after_step(2, signal.SIGSTOP, rank=1),
        launch={"hang_timeout_seconds": 6},
    ),
    Scenario(
        "Ctrl-C",
        130,
        ("stopped    stopped after step", "is saved", "next       lft resume"),
        deed=after_step(2, signal.SIGINT),
        fault={"slow_seconds": 0.3},
    ),
    Scenario(
        "Ctrl-C twice",
        130,
        ("stopped    stopped at once; this step was not saved",),
        "hang",
        deed=after_step(4, signal.SIGINT, signal.SIGINT),
    ),
    Scenario(
        "SIGTERM",
        75,
        ("stopped    stopped after step", "is saved"),
        deed=after_step(2, signal.SIGTERM),
        fault={"slow_seconds": 0.3},
    ),
    Scenario(
        "SIGUSR1",
        75,
        ("stopped    stopped after step", "is saved"),
        deed=after_step(2, signal.SIGUSR1),
        fault={"slow_seconds": 0.3},
    ),
    Scenario("SIGHUP, output to a file", 0, ("adapter    ",), deed=after_step(2, signal.SIGHUP)),
    Scenario(
        "out of memory on rank 1",
        67,
        ("rank 1 failed at step 5", "out of memory", "next       lft resume", "training.batch_size=1"),
        "out of memory",
    ),
    Scenario(
        "rank 1 never joins",
        66,
        ("rank 1", "did not join within 6 s"),
        deed=before_joining,
        launch={"join_timeout_seconds": 6},
    ),
)


def play(scenario: Scenario, model: Path, data: Path, folder: Path) -> Run:
    """Do it to a real run of two ranks in `folder`."""
    run_file = folder / "run.yaml"
    fault = {"kind": scenario.kind, "ranks": scenario.ranks, "step": STEP, **scenario.fault}
    if not scenario.kind:
        fault["ranks"] = []
    run = start(run_file, settings(model, data, folder / "out", **scenario.launch), fault)
    if scenario.deed:
        scenario.deed(run)
    else:
        run.wait_for_step(STEP - 1)
        run.note_hit()
    return end(run)
