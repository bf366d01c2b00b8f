"""Running a plan on one node: write its files, start its ranks, watch them, start them again, finish the run."""

import json
import os
import shlex
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lft.core.beat import Heart
from lft.core.errors import BUG, DONE, FORCED, HANG, OUT_OF_MEMORY, SAVED, STOPPED, PreflightError, UploadError
from lft.core.events import Event
from lft.core.files import write_text
from lft.core.hardware import look_at_machine
from lft.core.model_facts import read_model_facts
from lft.core.order import STOPPED_EARLY, Job, WorkerReport
from lft.core.rank import started_again_by_scheduler
from lft.core.run_dir import Attempt
from lft.core.run_lock import alone
from lft.core.words import rank_names
from lft.launch.company import Alone
from lft.launch.ending import in_a_line
from lft.launch.follow import is_trained, read_plan, training_attempts
from lft.launch.node_job import Around, do_job
from lft.launch.outcome import Outcome
from lft.launch.remaining import TASKS, Task, forget_first_try
from lft.launch.reporting import measured, page_problem
from lft.launch.restart import Brake, after_stop, benchmark_again, may_pass, next_step
from lft.launch.resuming import brake_of, resume_point, set_aside, steps_done
from lft.launch.stopping import StopRequests
from lft.launch.supervisor import Ended
from lft.launch.triage import find_failure, is_cause
from lft.launch.uploading import upload_until_stopped
from lft.plan.adviser import next_that_fits
from lft.plan.launch_plan import LaunchPlan
from lft.plan.smaller import SmallerRun
from lft.publish.report import Report, make_report, write_report

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
            self._refuse_used_attempt()
            brake, restarts = brake_of(self.plan.run_dir), self.plan.settings.launch.restarts
            while True:
                self._set_aside()
                with self._recorded() as record:
                    outcome = record(self.company.verdict(self._job("train") or self._finish(self._all_tasks())))
                brake.note(steps_done(self.attempt))
                is_job = self.company.continues_by_itself or started_again_by_scheduler()
                if brake.holds and outcome.exit_code == SAVED and is_job:
                    return self._braked(outcome, brake)
                if outcome.failure is None or outcome.exit_code == SAVED:
                    return outcome
                if not may_pass(outcome.failure.report) or restarts == 0:
                    return outcome
                if brake.holds:
                    return self._braked(outcome, brake)
                restarts -= 1
                self._start_again(outcome, restarts)

    def finish(self, tasks: Sequence[Task]) -> Outcome:
        """Do what is left of a run that has trained."""
        with alone(self.plan.run_dir), self.stop.listening(), self._recorded(trains=False) as record:
            return record(self.company.verdict(self._finish(tasks)))

    def benchmark(self) -> Outcome:
        """Benchmark and report an adapter that is already there."""
        with alone(self.plan.run_dir), self.stop.listening(), self._recorded(keeps_files=True, trains=False) as record:
            ended = self._benchmark()
            if ended and ended.failure is None:
                ended = ended.model_copy(update={"next_step": self._benchmark_again()})
            if ended:
                return record(ended)
            report, problem = self._report()
            return record(Outcome(exit_code=DONE, report=report, problems=(problem,) if problem else ()))

    def _refuse_used_attempt(self) -> None:
        """The plan was made before the lock was taken: another launch may have come and gone in between."""
        if self.plan.node == 0 and self.attempt.launcher.exists():
            raise PreflightError(
                f"another launch has used {self.plan.settings.output_dir} while this one was planned",
                next_step="type the same command again",
            )

    def _set_aside(self) -> None:
        plan = self.plan
        if plan.node > 0:
            return
        try:
            folder = set_aside(plan.run_dir, plan.attempt, plan.resume_from)
        except OSError as error:
            raise _unwritable(plan.settings.output_dir, error) from None
        if folder:
            self._say(f"moved      what this attempt does not go on from: {folder}")

    def _all_tasks(self) -> tuple[Task, ...]:
        settings = self.plan.settings
        wanted = {"benchmark": settings.has_benchmark, "report": True, "upload": bool(settings.upload.repo_name)}
        return tuple(task for task in TASKS if wanted[task])

    def _start_again(self, outcome: Outcome, left: int) -> None:
        """Make the plan of the next attempt, from the last complete checkpoint."""
        assert outcome.failure is not None
        checkpoint = resume_point(self.plan.run_dir).checkpoint
        number = self.plan.run_dir.next_attempt().number
        self.plan = self.plan.model_copy(update={"attempt": number, "resume_from": checkpoint})
        whence = checkpoint.name if checkpoint else "the first step"
        failed = f"{outcome.failure.who()} {in_a_line(outcome.failure.report)}"
        self._say(f"restart    {failed}; going on from {whence}, {left} restarts left")

    def _say(self, line: str) -> None:
        self.observe(Event(LAUNCHER, "notice", {"line": line}, time.time()))

    def _braked(self, outcome: Outcome, brake: Brake) -> Outcome:
        """The outcome of a run that would only repeat itself."""
        words = f"{brake.without_a_step} attempts in a row got no further than step {brake.farthest}"
        braked = outcome.model_copy(update={"exit_code": HANG, "problems": (f"not started again: {words}",)})
        return self._kept(braked)

    def _finish(self, tasks: Sequence[Task]) -> Outcome:
        settings = self.plan.settings
        if self.plan.node > 0:
            return Outcome(exit_code=DONE, stopped="trained; the adapter is on node 0")
        problems: list[str] = []
        if "benchmark" in tasks:
            ended = self._benchmark()
            if ended is not None and ended.failure is None:
                return ended
            if ended is not None and ended.failure is not None:
                failed = ended.failure.report
                problems.append(f"benchmark failed: {failed.message}; again: {self._benchmark_again(failed)}")
        report, report_problem = self._report() if "report" in tasks else (None, "")
        problems += [report_problem] if report_problem else []
        uploaded, upload_problem, again = "", "", shlex.join(["lft", "upload", str(settings.output_dir)])
        if "upload" in tasks:
            try:
                uploaded = self._upload()
            except UploadError as error:
                upload_problem = f"{error.message}; {error.next_step}; then: {again}"
            if not uploaded and not upload_problem:
                words = "stopped while uploading; the adapter is saved"
                return Outcome(exit_code=self._stop_code, report=report, stopped=words, next_step=again)
        return Outcome(
            exit_code=DONE, report=report, uploaded=uploaded, upload_problem=upload_problem, problems=tuple(problems)
        )

    def _benchmark(self) -> Outcome | None:
        """The benchmark, once more after a failure that may pass: it goes on with the answers that are there."""
        ended = self._job("benchmark")
        if ended is None or ended.failure is None or not may_pass(ended.failure.report):
            return ended
        self._say(f"restart    benchmark: {ended.failure.who()} {in_a_line(ended.failure.report)}; once more")
        forget_first_try(self.attempt)
        return self._job("benchmark")

    def _benchmark_again(self, report: WorkerReport | None = None) -> str:
        trained = training_attempts(self.plan.run_dir)[:1]
        return benchmark_again(self.plan, report, read_plan(trained[0]).settings if trained else None)

    def _upload(self) -> str:
        """The address of the upload, or nothing where a stop came first. Raises UploadError."""
        self.observe(Event(LAUNCHER, "stage", {"name": "uploading"}, time.time()))
        Heart(self.attempt.beat(0)).beat("uploading")  # rank 0 has left, and this is where readers look
        return upload_until_stopped(self.plan.settings, self._say, lambda: bool(self.stop.look()))

    @property
    def _stop_code(self) -> int:
        return STOPPED if self.stop.by_user else SAVED

    def _report(self) -> tuple[Report, str]:
        """Write report.json and the model card from what the ranks measured; also what kept them from being written."""
        from lft.publish.card import write_card  # with the Hub's client: 10 MB that no one needs while ranks train

        run_dir, settings = self.plan.run_dir, self.plan.settings
        first_rank = self.plan.local_ranks[0]
        trained = measured("train", run_dir.attempts(), first_rank)
        predicted = self.plan.memory.total if self.plan.memory else None
        training = training_attempts(run_dir)[:1]  # none, where an adapter from elsewhere is benchmarked
        since = [attempt for attempt in run_dir.attempts() if not training or attempt.number >= training[0].number]
        report = make_report(settings, trained, measured("benchmark", since, first_rank), predicted)
        try:
            write_report(run_dir, report)
        except OSError as error:  # a full disk; the run is trained all the same
            return report, f"the report was not written: {error}; again: {self._benchmark_again()}"
        page_problem(run_dir)  # for the picture on the card; how the attempt ends is not known yet, and written later
        try:
            if self.plan.adapter is None:
                write_card(settings.output_dir, settings.upload.repo_name, revision=settings.upload.revision)
        except OSError as error:
            return report, f"the model card was not written: {error}"
        return report, ""

    def _job(self, job: Job) -> Outcome | None:
        """Run one job on this node's ranks; None when it is done, else how the run ended."""
        plan, attempt = self.plan, self.attempt
        trained = measured("train", plan.run_dir.attempts(), plan.local_ranks[0]) if job == "benchmark" else []
        plan.order(job, trained[0]["precision"] if trained else None).save(attempt.order(job))
        self.company.begin(plan, job)
        around = Around(
            stop=self.stop, observe=self._observe, on_tick=self._tick, is_called_off=self.company.has_given_up
        )
        ended, was_working = do_job(plan, job, around)
        elsewhere = self.company.failures(plan)
        is_done = all(exit_.code == DONE and not exit_.too_early for exit_ in ended.exits)
        # ranks may have been signalled, and this process not
        by_ranks = any(exit_.code == SAVED for exit_ in ended.exits)
        by_ranks = by_ranks and not elsewhere and not any(is_cause(exit_, attempt) for exit_ in ended.exits)
        if by_ranks or (self.stop.received and (job == "train" or not is_done)):
            words = "stopped after training; the adapter is saved" if is_done else STOPPED_EARLY[job]
            return self._stopped(ended, words, was_working=was_working)
        failure = find_failure(ended, attempt, elsewhere)
        if failure is None:
            return None
        code = failure.report.exit_code
        if job == "benchmark":
            says_it_itself = code != OUT_OF_MEMORY and not may_pass(failure.report)
            again = "" if says_it_itself else self._benchmark_again(failure.report)
        else:
            smaller = self._smaller_run(failure.report) if code == OUT_OF_MEMORY else None
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
            why = f", since {reason}" if reason else ""
            self._say(f"stopping   after this step{why}; Ctrl-C once more, or lft stop --now, stops at once")

    def _smaller_run(self, report: WorkerReport) -> SmallerRun | None:
        model = read_model_facts(self.plan.settings.model)
        # on a GPU the report knows what the process held of the machine's memory, not of the GPU's
        held_bytes = report.memory_bytes if self.plan.topology.device == "cpu" else 0
        return next_that_fits(self.plan, look_at_machine(), model, held_bytes)

    def _stopped(self, ended: Ended, words: str, *, was_working: bool) -> Outcome:
        """The outcome of a stop: 128 + signal where a step was lost, else 130 or 75, with what the ranks say of it."""
        received = self.stop.received
        slow = [exit_.rank for exit_ in ended.exits if not exit_.is_fine]
        if was_working and slow:
            lost = "stopped at once; this step was not saved"
            if len(received) < 2:
                seconds = self.plan.settings.launch.grace_seconds
                lost = f"{rank_names(slow)} did not stop within {seconds:g} s and had to be killed; this step was not saved"
            number = received[-1] if received else signal.SIGTERM
            return Outcome(exit_code=FORCED + number, stopped=lost, next_step=self._after_stop())
        said = [WorkerReport.load(path).message for path in sorted(self.attempt.failure(0).parent.glob("rank-*.json"))]
        return Outcome(exit_code=self._stop_code, stopped=said[0] if said else words, next_step=self._after_stop())

    def _after_stop(self) -> str:
        run_dir = self.plan.run_dir
        return after_stop(self.plan, resume_point(run_dir).checkpoint, is_trained=is_trained(run_dir))

    @contextmanager
    def _recorded(self, *, trains: bool = True, keeps_files: bool = False) -> Iterator[Callable[[Outcome], Outcome]]:
        """Write who makes the attempt and, through what is yielded, how it ended; also where lft itself fails."""
        self._write_files(trains=trains, keeps_files=keeps_files)
        outcomes: list[Outcome] = []

        def record(outcome: Outcome) -> Outcome:
            outcomes.append(outcome)
            if outcome.stopped and self.stop.received:
                outcome = outcome.model_copy(update={"took": self.stop.took()})
            return self._kept(outcome)

        try:
            yield record
        except BaseException as error:
            if not outcomes:
                code = getattr(error, "exit_code", STOPPED if isinstance(error, KeyboardInterrupt) else BUG)
                record(Outcome(exit_code=code, stopped=f"{type(error).__name__}: {error}"))
            raise

    def _kept(self, outcome: Outcome) -> Outcome:
        """Write how the attempt ended, and its page; a full disk must not hide it from who reads the terminal."""
        try:
            outcome.save(self.attempt.outcome)
            problem = page_problem(self.plan.run_dir) if self.plan.node == 0 else ""
        except OSError as error:
            problem = f"{self.attempt.outcome} cannot be written: {error.strerror}"
        return outcome.model_copy(update={"problems": (*outcome.problems, problem)}) if problem else outcome

    def _write_files(self, *, trains: bool, keeps_files: bool) -> None:
        """The plan's files; `keeps_files`: those of the run stay, which this attempt does not change."""
        output_dir = self.plan.settings.output_dir
        who = {"pid": os.getpid(), "host": socket.gethostname(), "started_ns": time.time_ns(), "node": self.plan.node}
        try:
            for name, text in self.plan.files().items():
                is_kept = keeps_files and (output_dir / name).exists()
                if trains or not (is_kept or output_dir / name == self.attempt.order("train")):
                    write_text(output_dir / name, text)
            write_text(self.attempt.launcher, json.dumps(who))
        except OSError as error:
            raise _unwritable(output_dir, error) from None


def _unwritable(output_dir: Path, error: OSError) -> PreflightError:
    return PreflightError(f"{output_dir} cannot be written: {error.strerror}", next_step="choose another --output-dir")
