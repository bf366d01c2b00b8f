"""Running a plan on one node: write its files, start its ranks, watch them, start them again, finish the run."""

import json
import os
import shlex
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError

from lft.core.beat import Beat, Heart
from lft.core.errors import BUG, DONE, FORCED, HANG, OUT_OF_MEMORY, SAVED, STOPPED, PreflightError, UploadError
from lft.core.events import Event
from lft.core.files import write_text
from lft.core.hardware import look_at_machine
from lft.core.model_facts import read_model_facts
from lft.core.order import STOPPED_EARLY, Job, WorkerReport
from lft.core.run_dir import Attempt
from lft.core.run_lock import alone
from lft.core.settings import RunSettings
from lft.core.words import rank_names
from lft.launch.company import Alone
from lft.launch.node_job import WORKING, Around, do_job
from lft.launch.outcome import Outcome
from lft.launch.ranks import POLL_SECONDS
from lft.launch.restart import Brake, may_pass, next_step
from lft.launch.resuming import resume_point
from lft.launch.stopping import StopRequests
from lft.launch.supervisor import Ended
from lft.launch.triage import find_failure
from lft.plan.launch_plan import LaunchPlan
from lft.plan.strategy import SmallerRun, next_that_fits
from lft.publish.report import Report, write_report

Observer = Callable[[Event], None]
LAUNCHER = "launcher"
"""Who says what no rank says."""


class Agent:
    """Runs the jobs of one plan and tells `observe` what happens. `plan` is that of the newest attempt."""

    def __init__(
        self, plan: LaunchPlan, observe: Observer, company: Alone | None = None, stop: StopRequests | None = None
    ) -> None:
        self.plan, self.observe, self.company = plan, observe, company or Alone()
        self.stop = stop or StopRequests(plan.run_dir.stop_request)
        self._told_stop = False

    @property
    def attempt(self) -> Attempt:
        """The attempt that is being made."""
        return self.plan.attempt_dir

    def run(self) -> Outcome:
        """Train, with restarts; benchmark, report, upload. What comes after training cannot fail the run."""
        with alone(self.plan.run_dir), self.stop.listening():
            brake, restarts = Brake(), self.plan.settings.launch.restarts
            while True:
                with self._recorded() as record:
                    outcome = record(self._verdict(self._job("train") or self._finish()))
                brake.note(self._steps_done())
                if outcome.failure is None or not may_pass(outcome.failure.report) or restarts == 0:
                    return outcome
                if brake.holds:
                    return self._braked(outcome, brake)
                restarts -= 1
                self._start_again(outcome, restarts)

    def benchmark(self) -> Outcome:
        """Benchmark and report an adapter that is already there."""
        with alone(self.plan.run_dir), self.stop.listening(), self._recorded() as record:
            return record(self._verdict(self._job("benchmark") or Outcome(exit_code=DONE, report=self._report())))

    def _verdict(self, outcome: Outcome) -> Outcome:
        return self.company.verdict(self.plan.run_dir, outcome)

    def _start_again(self, outcome: Outcome, left: int) -> None:
        """Make the plan of the next attempt, from the last complete checkpoint."""
        assert outcome.failure is not None
        checkpoint = resume_point(self.plan.run_dir).checkpoint
        number = self.plan.run_dir.next_attempt().number
        self.plan = self.plan.model_copy(update={"attempt": number, "resume_from": checkpoint})
        whence = checkpoint.name if checkpoint else "the first step"
        message = outcome.failure.report.message.splitlines()[0]
        self._say(f"restart    {outcome.failure.who()} {message}; going on from {whence}, {left} restarts left")

    def _say(self, line: str) -> None:
        self.observe(Event(LAUNCHER, "notice", {"line": line}, time.time()))

    def _braked(self, outcome: Outcome, brake: Brake) -> Outcome:
        """The outcome of a run that would only repeat itself."""
        words = f"{brake.without_a_step} attempts in a row got no further than step {brake.farthest}"
        braked = outcome.model_copy(update={"exit_code": HANG, "problems": (f"not started again: {words}",)})
        return self._kept(braked)

    def _steps_done(self) -> int:
        """How many steps of the run the newest attempt has reached."""
        beats = (Beat.load(self.attempt.beat(rank)) for rank in self.plan.local_ranks)
        return max((beat.step or 0 for beat in beats if beat is not None and beat.stage in WORKING), default=0)

    def _finish(self) -> Outcome:
        settings = self.plan.settings
        if self.plan.node > 0:
            return Outcome(exit_code=DONE, stopped="trained; the adapter is on node 0")
        problems: list[str] = []
        if settings.has_benchmark:
            ended = self._job("benchmark")
            if ended is not None and ended.failure is None:
                return ended
            if ended is not None and ended.failure is not None:
                reason = ended.failure.report.message
                problems.append(f"benchmark failed: {reason}; again: lft benchmark {settings.output_dir}")
        report, uploaded, again = self._report(), "", shlex.join(["lft", "upload", str(settings.output_dir)])
        if settings.upload.repo_name:
            try:
                uploaded = self._upload()
            except UploadError as error:
                problems.append(f"{error.message}; {error.next_step}; then: {again}")
        if self.stop.look():
            words = "stopped while uploading; the adapter is saved"
            return Outcome(exit_code=self._stop_code, report=report, stopped=words, next_step=again)
        return Outcome(exit_code=DONE, report=report, uploaded=uploaded, problems=tuple(problems))

    def _upload(self) -> str:
        """The address of the upload, or nothing where a stop came first. Raises UploadError."""
        self.observe(Event(LAUNCHER, "stage", {"name": "uploading"}, time.time()))
        Heart(self.attempt.beat(0)).beat("uploading")  # rank 0 has left, and this is where readers look
        ended: list[str | Exception] = []

        def work() -> None:
            try:
                ended.append(upload(self.plan.settings))
            except Exception as error:
                ended.append(error)

        # a daemon: a Hub that does not answer must not keep a stopped run alive
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive() and not self.stop.look():
            thread.join(POLL_SECONDS)
        if ended and isinstance(ended[0], Exception):
            raise ended[0]
        return str(ended[0]) if ended else ""

    @property
    def _stop_code(self) -> int:
        return STOPPED if self.stop.by_user else SAVED

    def _report(self) -> Report:
        """Write report.json and the model card from what the ranks measured."""
        from lft.publish.card import write_card  # with the Hub's client: 10 MB that no one needs while ranks train

        run_dir, settings = self.plan.run_dir, self.plan.settings
        trained = self._metrics("train", run_dir.attempts())
        report = write_report(run_dir, settings, trained, self._metrics("benchmark", [self.attempt]))
        write_card(settings.output_dir, settings.upload.repo_name)
        return report

    def _job(self, job: Job) -> Outcome | None:
        """Run one job on this node's ranks; None when it is done, else how the run ended."""
        plan, attempt = self.plan, self.attempt
        trained = self._metrics("train", plan.run_dir.attempts()) if job == "benchmark" else []
        plan.order(job, trained[0]["precision"] if trained else None).save(attempt.order(job))
        self.company.begin(plan, job)
        around = Around(
            stop=self.stop, observe=self._observe, on_tick=self._tick, is_called_off=self.company.has_given_up
        )
        ended, was_working = do_job(plan, job, around)
        elsewhere = self.company.failures(plan)
        is_done = all(exit_.code == DONE and not exit_.too_early for exit_ in ended.exits)
        # a rank may have heard of a stop from another node's
        is_stopped = bool(self.stop.received) or any(exit_.code == SAVED for exit_ in ended.exits)
        if is_stopped and (job == "train" or not is_done):
            words = "stopped after training; the adapter is saved" if is_done else STOPPED_EARLY[job]
            return self._stopped(ended, words, was_working=was_working)
        failure = find_failure(ended, attempt, elsewhere)
        if failure is None:
            return None
        code = failure.report.exit_code
        smaller = self._smaller_run() if code == OUT_OF_MEMORY else None
        again = next_step(failure.report, plan, resume_point(plan.run_dir).checkpoint, smaller)
        return Outcome(exit_code=code, failure=failure, next_step=again)

    def _observe(self, event: Event) -> None:
        self.company.note(event)
        self.observe(event)

    def _tick(self) -> None:
        reason = "" if self.stop.received else self.company.reason_to_stop()
        if reason:
            self.stop.ask(reason)
        if self.stop.received and not self._told_stop:
            self._told_stop = True
            why = f", {reason}" if reason else ""
            self._say(f"stopping   after this step{why}; once more (Ctrl-C, SIGTERM, lft stop --now) stops at once")

    def _smaller_run(self) -> SmallerRun | None:
        plan = self.plan
        model = read_model_facts(plan.settings.model)
        return next_that_fits(
            plan.settings, plan.strategy, plan.topology, plan.memory, plan.precision, look_at_machine(), model
        )

    def _stopped(self, ended: Ended, words: str, *, was_working: bool) -> Outcome:
        """The outcome of a stop: 128 + signal where a step was lost, else 130 or 75, with what the ranks say of it."""
        received = self.stop.received
        slow = [exit_.rank for exit_ in ended.exits if not exit_.is_fine]
        if was_working and slow:
            lost = "stopped at once; this step was not saved"
            if len(received) < 2:
                seconds = self.plan.settings.launch.grace_seconds
                lost = f"{rank_names(slow)} did not stop within {seconds:g} s and had to be killed; this step was not saved"
            return Outcome(
                exit_code=FORCED + (received or [signal.SIGTERM])[-1], stopped=lost, because=self.stop.because
            )
        said = [WorkerReport.load(path).message for path in sorted(self.attempt.failure(0).parent.glob("rank-*.json"))]
        return Outcome(exit_code=self._stop_code, stopped=said[0] if said else words, because=self.stop.because)

    @contextmanager
    def _recorded(self) -> Iterator[Callable[[Outcome], Outcome]]:
        """Write who makes the attempt and, through what is yielded, how it ended; also where lft itself fails."""
        self._write_files()
        outcomes: list[Outcome] = []

        def record(outcome: Outcome) -> Outcome:
            outcomes.append(outcome)
            return self._kept(outcome)

        try:
            yield record
        except BaseException as error:
            if not outcomes:
                code = getattr(error, "exit_code", STOPPED if isinstance(error, KeyboardInterrupt) else BUG)
                record(Outcome(exit_code=code, stopped=f"{type(error).__name__}: {error}"))
            raise

    def _kept(self, outcome: Outcome) -> Outcome:
        """Write how the attempt ended; a full disk must not hide it from who reads the terminal."""
        try:
            outcome.save(self.attempt.outcome)
        except OSError as error:
            problem = f"{self.attempt.outcome} cannot be written: {error.strerror}"
            return outcome.model_copy(update={"problems": (*outcome.problems, problem)})
        return outcome

    def _write_files(self) -> None:
        output_dir = self.plan.settings.output_dir
        who = {"pid": os.getpid(), "host": socket.gethostname(), "started_ns": time.time_ns(), "node": self.plan.node}
        try:
            for name, text in self.plan.files().items():
                write_text(output_dir / name, text)
            write_text(self.attempt.launcher, json.dumps(who))
        except OSError as error:
            raise PreflightError(
                f"{output_dir} cannot be written: {error.strerror}", next_step="choose another --output-dir"
            ) from None

    def _metrics(self, job: Job, attempts: list[Attempt]) -> list[dict[str, Any]]:
        """What the ranks measured, rank 0 first, in the newest of `attempts` in which this node finished the job.

        Ranks of other nodes are left out where they do not share the folder.
        """
        for attempt in reversed(attempts):
            paths = [attempt.report(job, rank) for rank in range(self.plan.topology.ranks)]
            try:
                if all(paths[rank].exists() for rank in self.plan.local_ranks):
                    return [WorkerReport.load(path).metrics for path in paths if path.exists()]
            except ValidationError:  # damaged since
                continue
        return []


def upload(settings: RunSettings) -> str:
    """Upload a finished run as its settings say; returns the address. Raises UploadError."""
    from lft.publish.upload import upload_adapter

    wish = settings.upload
    assert wish.repo_name is not None
    return upload_adapter(settings.output_dir, wish.repo_name, create_new=wish.create_new, private=wish.private)
