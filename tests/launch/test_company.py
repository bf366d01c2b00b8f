"""What becomes of a SLURM job after each kind of end."""

from pathlib import Path

import pytest

from lft.core.order import WorkerReport
from lft.launch import company as company_module
from lft.launch import time_limit
from lft.launch.company import InJob
from lft.launch.outcome import Failure, Outcome
from lft.launch.slurm import Job
from lft.launch.team import Member, Team
from lft.launch.time_limit import TimeLimit

CRASH = Failure(report=WorkerReport(ok=False, rank=1, stage="training", exit_code=64), ranks=(1,), stopped=1)


@pytest.fixture
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InJob:
    monkeypatch.setattr(time_limit, "end_time", lambda job_id: None)
    monkeypatch.setattr(company_module, "find_job", lambda job_id: Job(job_id=job_id, state="RUNNING"))
    me = Member(node=0, name="n1", address="127.0.0.1", pid=1)
    return InJob(Team(tmp_path, me, ["n1", "n2"]), "7", TimeLimit("7", tmp_path / "none"))


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(exit_code=0), 0),
        (Outcome(exit_code=75), 75),
        (Outcome(exit_code=130), 130),
        (Outcome(exit_code=143, stopped="killed"), 75),
        (Outcome(exit_code=64, failure=CRASH), 64),
        (Outcome(exit_code=137, failure=CRASH), 137),
        (Outcome(exit_code=65, failure=CRASH), 65),
    ],
)
def test_only_a_stop_that_was_not_meant_to_last_is_continued(company: InJob, outcome: Outcome, code: int) -> None:
    assert company.verdict(outcome).exit_code == code


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [
        ("COMPLETING", "None", 130),
        ("CANCELLED", "None", 130),
        ("COMPLETING", "TimeLimit", 75),
        ("RUNNING", "None", 75),
        ("PENDING", "BeginTime", 75),
    ],
)
def test_a_cancelled_job_does_not_come_back(
    company: InJob, monkeypatch: pytest.MonkeyPatch, state: str, reason: str, code: int
) -> None:
    job = Job(job_id="7", state=state, reason=reason)
    monkeypatch.setattr(company_module, "find_job", lambda job_id: job)
    assert company.verdict(Outcome(exit_code=75)).exit_code == code


def test_a_run_that_lost_a_node_is_continued_and_says_which(company: InJob) -> None:
    company._lost = [1]
    report = company.team.loss([1], 4, 12)
    verdict = company.verdict(Outcome(exit_code=65, failure=Failure(report=report, ranks=(4,), stopped=7)))
    assert verdict.exit_code == 75
    assert verdict.failure is not None
    assert (verdict.failure.report.node, verdict.failure.report.step) == ("n2", 12)
