"""Running a plan on this machine: write its files, start its ranks, watch them, finish the run."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from lft.core.errors import DONE, FORCED, SAVED, STOPPED, PreflightError, UploadError
from lft.core.events import Event, EventTail
from lft.core.files import write_text
from lft.core.order import STOPPED_EARLY, Job, WorkerReport
from lft.core.run_dir import Attempt
from lft.core.settings import RunSettings
from lft.launch.supervisor import GATHER_SECONDS, Exit, Ranks, StopSignals, supervise
from lft.launch.triage import Failure, find_failure
from lft.plan.launch_plan import LaunchPlan
from lft.publish.card import write_card
from lft.publish.report import Report, write_report
from lft.publish.upload import upload_adapter

Observer = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `report` is there when it trained; `problems` are a benchmark or upload to do again."""

    exit_code: int
    report: Report | None = None
    failure: Failure | None = None
    stopped: str = ""
    """What a stop left behind, in words."""
    uploaded: str = ""
    problems: tuple[str, ...] = ()


class Agent:
    """Runs the jobs of one plan and tells `observe` what happens."""

    def __init__(self, plan: LaunchPlan, observe: Observer) -> None:
        self.plan, self.observe = plan, observe
        self.attempt = plan.attempt_dir

    def run(self) -> Outcome:
        """Train, benchmark, report, upload. Only training can fail the run; what comes after can be done again."""
        with self._alone():
            self._write_files()
            return self._job("train") or self._finish()

    def benchmark(self) -> Outcome:
        """Benchmark and report an adapter that is already there."""
        with self._alone():
            return self._job("benchmark") or Outcome(DONE, report=self._report())

    def _finish(self) -> Outcome:
        settings = self.plan.settings
        problems: list[str] = []
        if settings.has_benchmark:
            ended = self._job("benchmark")
            if ended is not None and ended.failure is None:
                return ended
            if ended is not None and ended.failure is not None:
                reason = ended.failure.report.message
                problems.append(f"benchmark failed: {reason}; again: lft benchmark {settings.output_dir}")
        report, uploaded = self._report(), ""
        if settings.upload.repo_name:
            try:
                uploaded = upload(settings)
            except UploadError as error:
                problems.append(f"{error.message}; {error.next_step}; then: lft upload {settings.output_dir}")
        return Outcome(DONE, report=report, uploaded=uploaded, problems=tuple(problems))

    def _report(self) -> Report:
        """Write report.json and the model card from what the ranks measured."""
        run_dir, settings = self.plan.run_dir, self.plan.settings
        trained = self._metrics("train", run_dir.attempts())
        report = write_report(run_dir, settings, trained, self._metrics("benchmark", [self.attempt]))
        write_card(settings.output_dir, settings.upload.repo_name)
        return report

    def _job(self, job: Job) -> Outcome | None:
        """Run one job on all ranks; None when it is done, else how the run ended."""
        plan, attempt = self.plan, self.attempt
        trained = self._metrics("train", plan.run_dir.attempts()) if job == "benchmark" else []
        precision = trained[0]["precision"] if trained else None
        plan.order(job, precision).save(attempt.order(job))
        tail = EventTail(plan.run_dir.events)
        stages: set[str] = set()

        def pass_on_events() -> None:
            for event in tail.new_events():
                if event.kind == "stage":
                    stages.add(event.data["name"])
                self.observe(event)

        def grace_seconds() -> float:
            # before they train the ranks have nothing to save, and may be waiting for one that has left already
            is_working = stages & {"training", "answering"}
            return plan.settings.launch.grace_seconds if is_working else GATHER_SECONDS

        with StopSignals().listening() as stop, Ranks() as ranks:
            for rank in range(plan.topology.ranks):
                ranks.start(plan.argv(job), plan.environment(rank), attempt.log(rank), attempt.report(job, rank))
            exits = supervise(ranks, stop, grace_seconds, pass_on_events)
        is_done = all(exit_.code == DONE and not exit_.too_early for exit_ in exits)
        if stop.received and (job == "train" or not is_done):
            words = "stopped after training; the adapter is saved" if is_done else STOPPED_EARLY[job]
            return self._stopped(exits, stop.received, words, was_working=bool(stages & {"training", "answering"}))
        failure = find_failure(exits, attempt)
        return Outcome(failure.report.exit_code, failure=failure) if failure else None

    def _stopped(self, exits: list[Exit], received: list[int], words: str, *, was_working: bool) -> Outcome:
        """The outcome of a stop: 128 + signal where a step was lost, else 130 or 75, with what the ranks say of it."""
        if was_working and not all(exit_.is_fine for exit_ in exits):
            return Outcome(FORCED + received[-1], stopped="stopped at once; this step was not saved")
        said = [WorkerReport.load(path).message for path in sorted(self.attempt.failure(0).parent.glob("rank-*.json"))]
        return Outcome(STOPPED if received[0] == signal.SIGINT else SAVED, stopped=said[0] if said else words)

    def _write_files(self) -> None:
        output_dir = self.plan.settings.output_dir
        try:
            for name, text in self.plan.files().items():
                write_text(output_dir / name, text)
        except OSError as error:
            raise PreflightError(
                f"{output_dir} cannot be written: {error.strerror}", next_step="choose another --output-dir"
            ) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One run at a time in an output_dir."""
        output_dir = self.plan.settings.output_dir
        lock = FileLock(self.plan.run_dir.run / "lock", timeout=0)
        try:
            self.plan.run_dir.run.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            raise PreflightError(
                f"another run is using {output_dir}", next_step="choose another --output-dir"
            ) from None
        except OSError as error:
            raise PreflightError(
                f"{output_dir} cannot be written: {error.strerror or error}", next_step="choose another --output-dir"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _metrics(self, job: Job, attempts: list[Attempt]) -> list[dict[str, Any]]:
        """What the ranks measured, rank 0 first, in the newest of `attempts` that finished this job."""
        for attempt in reversed(attempts):
            paths = [attempt.report(job, rank) for rank in range(self.plan.topology.ranks)]
            if all(path.exists() for path in paths):
                return [WorkerReport.load(path).metrics for path in paths]
        return []


def upload(settings: RunSettings) -> str:
    """Upload a finished run as its settings say; returns the address. Raises UploadError."""
    wish = settings.upload
    assert wish.repo_name is not None
    return upload_adapter(settings.output_dir, wish.repo_name, create_new=wish.create_new, private=wish.private)
