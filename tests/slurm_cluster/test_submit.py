"""lft submit and the verbs of the login node, on a real SLURM."""

from pathlib import Path

import pytest

from lft.launch.submission import job_ids
from tests.slurm_cluster.jobs import RUN_FILE, Site, Submitted

LATER = ("--set", 'slurm.directives=["--begin=now+1hour"]')
HOSTILE = 'it\'s "a" $(touch pwned) %j \\ `x`\n#SBATCH --nodes=99 é'
SECRETS = {
    "HF_TOKEN": "hf_planted",
    "WANDB_API_KEY": "planted",
    "AWS_SECRET_ACCESS_KEY": "planted",
    "https_proxy": "http://me:planted@127.0.0.1:1",
}


def test_a_path_with_anything_in_it_goes_through_submit_run_and_status_and_no_secret_leaves_the_environment(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "variables", SECRETS)
    run = site.submit(tmp_path / HOSTILE, nodes=1, steps=2).done()
    assert (run.output_dir / "adapter_model.safetensors").exists()
    assert not list(tmp_path.rglob("pwned")) + list(site.cluster.folder.rglob("pwned"))
    assert f"job {run.job_id} completed" in site.lft("status", run.output_dir, cwd=tmp_path).stdout
    assert "HF_TOKEN, WANDB_API_KEY" in run.said
    read = [path for top in (tmp_path, site.cluster.folder) for path in top.rglob("*") if path.is_file()]
    assert len(read) > 50
    assert not [path for path in read if b"planted" in path.read_bytes()]
    assert "planted" not in site.cluster.ask("scontrol", "show", "job", "--details", run.job_id)


@pytest.mark.parametrize("impossible", [("--nodes", 9), ("--partition", "none"), ("--set", "slurm.mem=900G")], ids=str)
def test_what_slurm_cannot_give_is_refused_before_anything_is_submitted(
    site: Site, tmp_path: Path, impossible: tuple[str, object]
) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(RUN_FILE.format(model=site.model, data=site.data, nodes=1, steps=2))
    done = site.lft("submit", run_file, "--output-dir", "out", *impossible, cwd=tmp_path)
    assert done.returncode == 3, done.stdout
    assert "SLURM refuses the job" in done.stderr
    assert site.cluster.ask("squeue", "-h", "-n", "lft-out") == ""


def test_a_job_that_waits_is_told_stopped_and_submitted_again(site: Site, tmp_path: Path) -> None:
    run = site.submit(tmp_path, *LATER, steps=2)
    for verb in ("status", "why", "logs"):
        said = site.lft(verb, run.output_dir, cwd=tmp_path)
        assert said.returncode == 0, said.stderr
        assert f"job {run.job_id} is requeued, earliest start" in said.stdout
    again = site.lft("submit", tmp_path / "run.yaml", "--output-dir", run.output_dir, cwd=tmp_path)
    assert again.returncode == 3
    assert "is in use" in again.stderr
    assert site.lft("stop", run.output_dir, cwd=tmp_path).returncode == 0
    assert run.wait() == "CANCELLED"
    assert "cancelled" in site.lft("status", run.output_dir, cwd=tmp_path).stdout
    first = run.job_id
    assert site.lft("resume", run.output_dir, "--time", "3", cwd=tmp_path).returncode == 0
    assert job_ids(run.run_dir) == [first, run.job_id]
    assert "TimeLimit=00:03:00" in site.cluster.ask("scontrol", "show", "job", run.job_id)
    site.cluster.ask("scancel", run.job_id)


def test_a_run_after_another_one_waits_for_its_job(site: Site, tmp_path: Path) -> None:
    first = site.submit(tmp_path / "first", *LATER)
    second = site.submit(tmp_path / "second", "--after", first.output_dir)
    status = site.lft("status", second.output_dir, cwd=tmp_path).stdout
    assert f"job {second.job_id} waits until another job is done" in status
    site.cluster.ask("scancel", first.job_id, second.job_id)


def test_nodes_that_do_not_come_are_named(site: Site, tmp_path: Path) -> None:
    run_file = tmp_path / "run.yaml"
    text = RUN_FILE.format(model=site.model, data=site.data, nodes=2, steps=2)
    run_file.write_text(text.replace("join_timeout_seconds: 60", "join_timeout_seconds: 2"))
    only_first = '[ "$SLURM_NODEID" = 0 ] || exit 0; exec "$@"'
    lft = [*site.python, "launch", run_file, "--output-dir", "out"]
    done = site.run("srun", "-N2", "-n2", "sh", "-c", only_first, "sh", *lft, cwd=tmp_path)
    assert done.returncode == 66
    missing = [
        site.cluster.node(number) for number in range(1, 4) if f"2 s: {site.cluster.node(number)}" in done.stderr
    ]
    assert len(missing) == 1


@pytest.mark.parametrize(
    ("step", "code", "words"),
    [
        (("-N2", "--ntasks-per-node=2"), 2, "SLURM started 4 tasks on 2 nodes; one agent a node is expected"),
        (("-N1", "-n1"), 66, "the plan is for 2 nodes, and 1 are missing"),
        (("-N3", "-n3"), 2, "launch.nodes  is 2, and this step has 3"),
    ],
)
def test_a_step_that_is_not_the_plans_is_refused(
    site: Site, tmp_path: Path, step: tuple[str, ...], code: int, words: str
) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(RUN_FILE.format(model=site.model, data=site.data, nodes=2, steps=2))
    done = site.run("srun", *step, *site.python, "launch", run_file, "--output-dir", "out", cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr
    assert not (tmp_path / "out" / "run" / "attempt-0").exists()


@pytest.mark.long
def test_a_sweep_is_submitted_as_one_array_whose_runs_have_names_to_read(site: Site, tmp_path: Path) -> None:
    run_file = tmp_path / "run.yaml"
    text = RUN_FILE.format(model=site.model, data=site.data, nodes=1, steps=3)
    run_file.write_text(text + "sweep: {lora.r: [2, 4], lora.use_dora: [true]}\n")
    done = site.lft("sweep", run_file, "--output-dir", "out", "--submit", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    names = ["r-2_use_dora-true", "r-4_use_dora-true"]
    for name in names:
        Submitted(site, tmp_path / "out" / name, "").done()
        assert (tmp_path / "out" / name / "adapter_model.safetensors").exists()
    table = site.lft("sweep", run_file, "--output-dir", "out", "--results", cwd=tmp_path).stdout
    assert all(any(name in line and "3 steps" in line for line in table.splitlines()) for name in names)
    assert "lora.r=4" in site.lft("status", tmp_path / "out", cwd=tmp_path).stdout
