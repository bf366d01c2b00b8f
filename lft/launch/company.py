"""Who else works on a run beside this agent: nobody, or a SLURM job's other nodes and SLURM itself."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lft.core.beat import Beat
from lft.core.errors import FORCED, SAVED, STOPPED
from lft.core.events import Event
from lft.core.order import Job, WorkerReport
from lft.launch.outcome import Outcome
from lft.launch.slurm import find_job
from lft.launch.team import Team
from lft.launch.time_limit import TimeLimit
from lft.launch.triage import all_reports
from lft.plan.launch_plan import LaunchPlan

SECONDS_BETWEEN_LOOKS = 1.0
NODES_A_SECOND = 64
"""A look at another node reads two small files, over the network."""


class Alone:
    """Nobody else."""

    @property
    def continues_by_itself(self) -> bool:
        """Whether exit code 75 is enough for the run to go on."""
        return False

    def begin(self, plan: LaunchPlan, job: Job) -> None:
        """A job begins; its files are written."""

    def note(self, event: Event) -> None:
        """Something has happened here."""

    def reason_to_stop(self) -> str:
        """Why the run should stop now and go on later; nothing: it need not."""
        return ""

    def has_given_up(self) -> bool:
        """Whether the job has failed elsewhere."""
        return False

    def failures(self, plan: LaunchPlan) -> list[WorkerReport]:
        """This node's part of the job has ended; waits for the others', and returns what failed there."""
        return []

    def verdict(self, outcome: Outcome) -> Outcome:
        """The outcome of an attempt, with the exit code that decides whether a job is continued."""
        return outcome


@dataclass
class InJob(Alone):
    """The other nodes of a SLURM job, its time limit, and its next life."""

    team: Team
    job_id: str
    limit: TimeLimit
    _lost: list[int] = field(default_factory=list)
    _gave_up: Callable[[], bool] = lambda: False
    _job: Job = "train"

    @property
    def continues_by_itself(self) -> bool:
        """The batch script requeues the job."""
        return True

    def begin(self, plan: LaunchPlan, job: Job) -> None:
        """Have the other nodes begin too."""
        self._job = job
        self.team.begin(plan.attempt, job)
        seconds = len(self.team.names) / NODES_A_SECOND
        self._gave_up = seldom(lambda: bool(self.team.failed()), max(SECONDS_BETWEEN_LOOKS, seconds))

    def note(self, event: Event) -> None:
        """Learn how long steps and saves take."""
        if event.writer == "rank-0":
            self.limit.note(event)

    def reason_to_stop(self) -> str:
        """The time limit."""
        return "the time limit came near" if self.limit.is_near() else ""

    def has_given_up(self) -> bool:
        """Whether another node has said that the job failed there, or is gone."""
        return self._gave_up()

    def failures(self, plan: LaunchPlan) -> list[WorkerReport]:
        """The reports of other nodes' ranks, and one for the nodes that are gone."""
        self._lost = self.team.settle()
        attempt = plan.attempt_dir
        reports = all_reports(attempt) if attempt.failure(0).parent.exists() else []
        here = plan.ranks_here(self._job)
        reports = [report for report in reports if report.rank not in here and report.exit_code != SAVED]
        if self._lost and all(report.is_victim for report in reports):
            first = min(self._lost) * plan.ranks_per_node(self._job)
            beat = Beat.load(attempt.beat(first))
            reports.append(self.team.loss(self._lost, first, beat.step if beat else None))
        return reports

    def verdict(self, outcome: Outcome) -> Outcome:
        """Go on (75) after a lost node, or a stop that nobody meant to last; a job that was cancelled stays so (130)."""
        code = outcome.exit_code
        is_forced = outcome.failure is None and code > FORCED and code != STOPPED
        if code != SAVED and not is_forced and not self._lost:
            return outcome
        job = find_job(self.job_id)
        return outcome.model_copy(update={"exit_code": STOPPED if job and job.is_ended_by_hand else SAVED})


def seldom(ask: Callable[[], bool], seconds: float = SECONDS_BETWEEN_LOOKS) -> Callable[[], bool]:
    """The same question, asked at most once in so many seconds; yes stays yes."""
    answer, asked = False, float("-inf")

    def asked_seldom() -> bool:
        nonlocal answer, asked
        if not answer and time.monotonic() - asked >= seconds:
            answer, asked = ask(), time.monotonic()
        return answer

    return asked_seldom
