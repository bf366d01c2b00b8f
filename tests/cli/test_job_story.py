"""A run's job in words, from whichever of SLURM's programs answers; and what no job may be told."""

import os
from datetime import datetime
from pathlib import Path

import pytest

from lft.cli.job_story import told_job, told_time
from lft.core.rank import environment_for_jobs, is_secret
from lft.launch.slurm import Job, find_job, requeues_by_exit_code

TODAY = f"{datetime.now():%Y-%m-%d}T13:14:00"


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (Job(job_id="7", state="PENDING", reason="BeginTime", start=TODAY), "job 7 is requeued, earliest start 13:14"),
        (Job(job_id="7", state="PENDING", reason="Resources"), "job 7 waits for nodes to become free"),
        (Job(job_id="7", state="PENDING", reason="QOSMaxJobs"), "job 7 waits (QOSMaxJobs)"),
        (Job(job_id="7", state="RUNNING", nodes="a[2-3]", end=TODAY), "job 7 running on a[2-3], until 13:14 at most"),
        (Job(job_id="7", state="NODE_FAIL", nodes="a2"), "job 7 node fail on a2"),
        (Job(job_id="7", state="UNKNOWN"), "job 7 is not known to SLURM any more"),
    ],
)
def test_a_job_is_told_in_a_line(job: Job, words: str) -> None:
    assert told_job(job) == words


def test_another_days_time_has_its_day() -> None:
    assert told_time("2020-01-02T03:04:05") == "Jan 02 03:04"
    assert told_time("N/A") == ""


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Only these programs of SLURM, each a line of shell."""
    for name, line in scripts.items():
        path = folder / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin")


@pytest.mark.parametrize(
    "scripts",
    [
        {"squeue": "echo 'RUNNING|None|2026-01-01T10:00:00|2026-01-01T14:00:00|a[2-3]'"},
        {
            "squeue": "exit 1",
            "scontrol": "echo 'JobId=7 JobState=RUNNING Reason=None StartTime=2026-01-01T10:00:00 "
            "EndTime=2026-01-01T14:00:00 NodeList=a[2-3]'",
        },
        {
            "sacct": "echo 'RUNNING|2026-01-01T10:00:00|2026-01-01T14:00:00|a[2-3]'",
            "squeue": "exit 1",
            "scontrol": "exit 1",
        },
    ],
    ids=["squeue", "scontrol", "sacct"],
)
def test_a_job_is_found_by_whichever_program_answers(
    scripts: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path, monkeypatch, **scripts)
    start, end = "2026-01-01T10:00:00", "2026-01-01T14:00:00"
    assert find_job("7") == Job(job_id="7", state="RUNNING", start=start, end=end, nodes="a[2-3]")


def test_where_none_of_them_is_there_a_job_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_job("7") is None


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "MY_CREDENTIALS"])
def test_what_looks_like_a_secret_is_kept_out_of_jobs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "planted")
    assert name not in environment_for_jobs()
    assert is_secret("https_proxy", "http://me:planted@proxy:8080")


def test_a_job_inherits_paths_and_no_other_jobs_or_ranks_words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_CPU_BIND", "SRUN_DEBUG", "SBATCH_PARTITION", "RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "1")
    for name in ("PATH", "HF_HOME", "SLURM_CONF", "TOKENIZERS_PARALLELISM", "https_proxy"):
        monkeypatch.setenv(name, "http://proxy:8080")
    kept = environment_for_jobs()
    assert {"PATH", "HF_HOME", "SLURM_CONF", "TOKENIZERS_PARALLELISM", "https_proxy"} <= kept.keys()
    assert not {"SLURM_JOB_ID", "SLURM_CPU_BIND", "SRUN_DEBUG", "SBATCH_PARTITION", "RANK", "MASTER_ADDR"} & kept.keys()
    assert os.environ["SLURM_JOB_ID"] == "1"


@pytest.mark.parametrize(
    ("config", "requeues"),
    [("75", True), ("3,70-80", True), ("(null)", False), ("7", False), ("76-80", False)],
)
def test_whether_an_exit_code_requeues_is_read_from_the_sites_configuration(
    config: str, requeues: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path, monkeypatch, scontrol=f"echo 'PrologFlags  = x'; echo 'RequeueExit             = {config}'")
    assert requeues_by_exit_code(75) is requeues
