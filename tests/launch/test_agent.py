"""A whole run of the agent, with small scripts in the place of the ranks that compute."""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from lft.core.errors import PreflightError
from lft.core.events import Event
from lft.core.hardware import Machine
from lft.core.order import STOPPED_EARLY, Job, WorkerOrder
from lft.core.settings import RunSettings
from lft.launch import reporting, stopping, uploading
from lft.launch.agent import Agent
from lft.launch.outcome import Outcome
from lft.plan.launch_plan import LaunchPlan, make_plan

pytestmark = pytest.mark.timeout(60)

RANK_SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from lft.core.events import EventWriter
from lft.core.order import WorkerOrder, WorkerReport
from lft.core.rank import Rank
from lft.core.run_dir import Attempt, RunDir
from lft.core.stop_signals import let_through
order, behaviour = WorkerOrder.load(Path(sys.argv[1])), sys.argv[2].split()
rank, attempt, run_dir = Rank.from_environment(), Attempt(order.attempt_dir), RunDir(order.settings.output_dir)
events = EventWriter(run_dir.events / f"rank-{rank.rank}.jsonl")
signal.signal(signal.SIGTERM, lambda *_: None)  # as a real rank: it looks between steps
let_through()
if {f"{order.job}-waits", f"{order.job}-hangs"} & {*behaviour}:
    leave = (lambda *_: sys.exit(75)) if f"{order.job}-waits" in behaviour else signal.SIG_IGN
    signal.signal(signal.SIGTERM, leave)
    events.write("stage", name={"train": "training", "benchmark": "answering"}[order.job])
    time.sleep(1000)
if f"{order.job}-is-signalled" in behaviour:
    os._exit(75) if rank.rank == 0 else time.sleep(1000)
if "fails-once" in sys.argv[2]:
    events.write("stage", name="training")
is_first_try = not list(attempt.folder.glob("failures-*"))
fails_first = f"{order.job}-fails-first" in behaviour and is_first_try
if f"{order.job}-fails" in behaviour or fails_first or (f"{order.job}-fails-once" in behaviour and attempt.number == 0):
    error = ValueError(f"no {order.job}")
    WorkerReport.of_failure(rank.rank, order.job, error, "Traceback").save(attempt.failure(rank.rank))
    sys.exit(64)
metrics = {"train": {"precision": "bf16", "peak_memory_bytes": rank.rank + 1, "steps": 3, "global_batch_size": 8}}
if order.job == "train":
    (run_dir.output_dir / "adapter_config.json").write_text('{"r": 8}')
WorkerReport(ok=True, rank=rank.rank, stage="", metrics=metrics.get(order.job, {})).save(attempt.report(order.job, rank.rank))
events.write("done", job=order.job)
os._exit(0)
"""


class ScriptedPlan(LaunchPlan):
    """A plan whose ranks run the script above."""

    behaviour: str = ""

    def argv(self, job: Job) -> list[str]:
        return [sys.executable, "-c", RANK_SCRIPT, str(self.attempt_dir.order(job)), self.behaviour]


def plan_in(folder: Path, behaviour: str = "", **sections: Any) -> ScriptedPlan:
    """A plan of two CPU ranks."""
    values = {"model": {"name": "a/b"}, "data": {"source": "a/b"}, "launch": {"cpu_procs": 2, "grace_seconds": 20}}
    settings = RunSettings.model_validate(values | {"output_dir": folder / "out"} | sections)
    machine = Machine(gpus=(), cpu_cores=2, memory_bytes=2**33, cpu_computes_bf16=True)
    return ScriptedPlan(**dict(make_plan(settings, machine)), behaviour=behaviour)


def run_until_the_end(plan: LaunchPlan) -> tuple[Outcome, list[Event]]:
    """Run a plan; also what an observer saw."""
    seen: list[Event] = []
    return Agent(plan, seen.append).run(), seen


def test_a_run_trains_benchmarks_and_reports_in_this_order(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    outcome, seen = run_until_the_end(plan)
    assert (outcome.exit_code, outcome.failure, outcome.problems, outcome.uploaded) == (0, None, (), "")
    assert [event.data["job"] for event in seen] == ["train", "train", "benchmark", "benchmark"]
    report = json.loads(plan.run_dir.report.read_text())
    assert report == outcome.report
    assert report["training"]["peak_memory_bytes_by_rank"] == [1, 2]
    assert (tmp_path / "out" / "README.md").exists()
    orders = [WorkerOrder.load(plan.attempt_dir.order(job)) for job in ("train", "benchmark")]
    assert [order.precision for order in orders] == [None, "bf16"], "the benchmark computes as training did"


def test_without_prompts_there_is_no_benchmark(tmp_path: Path) -> None:
    outcome, seen = run_until_the_end(plan_in(tmp_path, benchmark={"num_prompts": 0}))
    assert (outcome.exit_code, len(seen)) == (0, 2)


def test_a_training_that_fails_ends_the_run_with_its_exit_code(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, "train-fails")
    outcome, _ = run_until_the_end(plan)
    assert outcome.failure is not None
    assert (outcome.exit_code, outcome.failure.who(), outcome.failure.report.message) == (64, "ranks 0-1", "no train")
    assert not plan.run_dir.report.exists()


def test_a_benchmark_that_fails_leaves_a_finished_run_and_says_how_to_repeat_it(tmp_path: Path) -> None:
    outcome, _ = run_until_the_end(plan_in(tmp_path, "benchmark-fails"))
    assert outcome.exit_code == 0
    assert outcome.problems == (f"benchmark failed: no benchmark; again: lft benchmark {tmp_path / 'out'}",)
    assert outcome.report is not None
    assert outcome.report["training"]["steps"] == 3


def test_a_benchmark_that_fails_once_is_tried_again_in_the_same_attempt_and_what_its_ranks_took_is_free(
    tmp_path: Path,
) -> None:
    plan = plan_in(tmp_path, "benchmark-fails-first")
    plan.attempt_dir.claims.mkdir(parents=True)
    outcome, seen = run_until_the_end(plan)
    assert (outcome.exit_code, outcome.problems) == (0, ())
    said = [event.data["line"] for event in seen if event.kind == "notice"]
    assert said == ["restart    benchmark: ranks 0-1 no benchmark; once more"]
    assert not plan.attempt_dir.claims.exists()
    assert not plan.attempt_dir.failure(0).exists()
    assert len(list(plan.attempt_dir.folder.glob("failures-of-the-first-try/*"))) == 2


def test_a_benchmark_asked_for_by_itself_fails_with_its_own_code_and_uploads_nothing(tmp_path: Path) -> None:
    asked = Agent(plan_in(tmp_path, "benchmark-fails", upload={"repo_name": "me/x"}), lambda _: None).benchmark()
    assert asked.failure is not None
    assert (asked.exit_code, asked.failure.report.message, asked.uploaded) == (64, "no benchmark", "")


def test_an_upload_that_fails_leaves_a_finished_run_and_says_how_to_repeat_it(tmp_path: Path) -> None:
    outcome, _ = run_until_the_end(plan_in(tmp_path, upload={"repo_name": "me/x"}))
    assert (outcome.exit_code, outcome.uploaded) == (0, "")
    assert outcome.problems == ()
    assert outcome.upload_problem.endswith(f"then: lft upload {tmp_path / 'out'}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("job", ["train", "benchmark"])
def test_a_stopped_run_ends_after_the_job_it_is_in(job: Job, number: signal.Signals, code: int, tmp_path: Path) -> None:
    plan = plan_in(tmp_path, f"{job}-waits")
    outcome = Agent(plan, when_all_wait(number)).run()
    assert (outcome.exit_code, outcome.failure, outcome.stopped) == (code, None, STOPPED_EARLY[job])
    assert not plan.run_dir.report.exists()


def test_a_stop_that_comes_as_training_ends_still_stops_the_run(tmp_path: Path) -> None:
    done: set[str] = set()

    def stop_when_done(event: Event) -> None:
        done.update([event.writer] if event.kind == "done" else [])
        if len(done) == 2:
            os.kill(os.getpid(), signal.SIGINT)
            done.clear()

    outcome = Agent(plan_in(tmp_path), stop_when_done).run()
    assert (outcome.exit_code, outcome.stopped) == (130, "stopped after training; the adapter is saved")


def test_a_run_stopped_by_force_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "REPEAT_SECONDS", 0.0)
    outcome = Agent(plan_in(tmp_path, "train-hangs"), when_all_wait(signal.SIGTERM, signal.SIGINT)).run()
    assert (outcome.exit_code, outcome.failure) == (130, None)
    assert outcome.stopped == "stopped at once; this step was not saved"


def test_ranks_that_do_not_obey_a_stop_are_named_and_the_run_counts_as_forced(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, "train-hangs", launch={"cpu_procs": 2, "grace_seconds": 0.5})
    outcome = Agent(plan, when_all_wait(signal.SIGTERM)).run()
    assert outcome.exit_code == 143
    assert outcome.stopped == "ranks 0-1 did not stop within 0.5 s and had to be killed; this step was not saved"


@pytest.mark.parametrize(
    ("behaviour", "state", "words"),
    [
        ("", "done", "the adapter answers"),
        ("train-fails", "failed", "ranks 0-1, while train: no train"),
        ("train-is-signalled", "stopped", "stopped before training"),
    ],
)
def test_every_end_of_a_run_leaves_its_page(behaviour: str, state: str, words: str, tmp_path: Path) -> None:
    plan = plan_in(tmp_path, behaviour)
    outcome, _ = run_until_the_end(plan)
    page = plan.run_dir.page.read_text(encoding="utf-8")
    assert outcome.problems == ()
    assert f'<span class="state {state}">' in page
    assert words.lower() in page.lower()


def test_a_page_that_cannot_be_written_is_no_failure_and_is_named_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(reporting, "write_page", fail)
    outcome, _ = run_until_the_end(plan_in(tmp_path))
    assert outcome.exit_code == 0
    words = "the report's page was not written: OSError: disk full"
    assert outcome.problems == (f"{words}; again: lft report {tmp_path / 'out'}",)


def when_all_wait(*signals: signal.Signals) -> Callable[[Event], None]:
    """An observer that sends this process signals once both ranks have entered a stage."""
    waiting: set[str] = set()

    def observe(event: Event) -> None:
        waiting.update([event.writer] if event.kind == "stage" else [])
        if len(waiting) == 2:
            for number in signals:
                os.kill(os.getpid(), number)
            waiting.clear()

    return observe


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_stop_does_not_wait_for_a_hub_that_does_not_answer(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()
    monkeypatch.setattr(uploading, "upload", lambda _settings, _announce: str(answered.wait(50)))

    def stop_when_uploading(event: Event) -> None:
        if event.kind == "stage" and event.data["name"] == "uploading":
            os.kill(os.getpid(), number)

    plan = plan_in(tmp_path, benchmark={"num_prompts": 0}, upload={"repo_name": "me/x"})
    outcome = Agent(plan, stop_when_uploading).run()
    answered.set()
    assert (outcome.exit_code, outcome.uploaded) == (code, "")
    assert (outcome.stopped, outcome.next_step) == (
        "stopped while uploading; the adapter is saved",
        f"lft upload {tmp_path / 'out'}",
    )
    assert outcome.report is not None


def test_two_runs_never_share_an_output_dir(tmp_path: Path) -> None:
    plan = plan_in(tmp_path)
    plan.run_dir.run.mkdir(parents=True)
    inside, done = threading.Event(), threading.Event()

    def other_run() -> None:
        with FileLock(plan.run_dir.run / "lock"):
            inside.set()
            done.wait(20)

    other = threading.Thread(target=other_run)
    other.start()
    assert inside.wait(20)
    with pytest.raises(PreflightError, match="another run is using"):
        run_until_the_end(plan)
    assert [path.name for path in plan.run_dir.run.iterdir()] == ["lock"]
    done.set()
    other.join()
    assert run_until_the_end(plan)[0].exit_code == 0


def test_an_output_dir_that_cannot_be_made_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(PreflightError, match="out cannot be written: ") as caught:
        run_until_the_end(plan_in(tmp_path))
    assert caught.value.next_step == "choose another --output-dir"
