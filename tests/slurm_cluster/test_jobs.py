"""What happens to jobs, done to real ones on a real SLURM: each run ends with the undisturbed run's adapter, bit for bit."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TinyModels, demo_lines, run_lft
from tests.slurm_cluster.cluster import Cluster
from tests.slurm_cluster.cluster import Site as Kind
from tests.slurm_cluster.jobs import RUN_FILE, STEPS, Site, Submitted, kill


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tiny_models: TinyModels) -> Iterator[Site]:
    """A cluster whose preempted jobs hear SIGTERM, and whose batch scripts have to requeue for themselves."""
    yield from site_of(Kind(), tmp_path_factory, tiny_models)


def site_of(kind: Kind, tmp_path_factory: pytest.TempPathFactory, tiny_models: TinyModels) -> Iterator[Site]:
    """A cluster of some kind, and what is needed to use it."""
    folder = tmp_path_factory.mktemp("site")
    data = folder / "data.jsonl"
    data.write_text("\n".join(demo_lines(60)) + "\n", encoding="utf-8")
    with Cluster(folder / "slurm", kind) as cluster:
        yield Site(cluster, tiny_models.llama, data, folder / "cache")


@pytest.fixture(scope="module")
def undisturbed(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """A run on two nodes that nothing happens to."""
    return site.submit(tmp_path_factory.mktemp("undisturbed")).done()


def test_two_nodes_make_the_adapter_that_two_ranks_of_one_machine_make(
    site: Site, undisturbed: Submitted, tmp_path: Path
) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(RUN_FILE.format(model=site.model, data=site.data, nodes=1, steps=STEPS))
    done = run_lft("launch", run_file, "--output-dir", "out", "--cpu-procs", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    here = Submitted(site, tmp_path / "out", "")
    assert undisturbed.adapter() == here.adapter()
    assert undisturbed.attempts() == 1


def test_a_preempted_run_goes_on_by_itself(site: Site, undisturbed: Submitted, tmp_path: Path) -> None:
    run = site.submit(tmp_path)
    run.wait_for_step(5)
    run.preempt(run.nodes()[-1])
    run.done()
    assert run.exit_codes() == [75, 0]
    assert run.seen[:3] == ["PENDING", "RUNNING", "PENDING"] or run.seen[:2] == ["RUNNING", "PENDING"]
    assert run.steps_begun_at()[1] >= 5
    assert run.adapter() == undisturbed.adapter()


def test_a_signal_to_the_job_saves_and_requeues_it(site: Site, undisturbed: Submitted, tmp_path: Path) -> None:
    run = site.submit(tmp_path)
    run.wait_for_step(5)
    site.cluster.ask("scancel", "-s", "USR1", run.job_id)
    run.done()
    assert run.exit_codes() == [75, 0]
    assert run.adapter() == undisturbed.adapter()


def test_a_cancelled_run_saves_and_does_not_come_back(site: Site, tmp_path: Path) -> None:
    run = site.submit(tmp_path)
    run.wait_for_step(5)
    site.cluster.ask("scancel", run.job_id)
    assert run.wait() == "CANCELLED"
    assert site.cluster.ask("squeue", "-h", "-t", "pending", "-j", run.job_id) == ""


def test_a_rank_that_crashes_ends_the_job_with_its_own_error(site: Site, tmp_path: Path) -> None:
    run = site.submit(tmp_path)
    run.wait_for_step(5)
    kill(site.cluster.processes(run.nodes()[-1], "lft.train.worker"), signal.SIGSEGV)
    assert run.wait() == "FAILED"
    assert run.attempts() == 1
    assert "rank 1" in site.lft("why", run.output_dir, cwd=tmp_path).stdout


def test_a_node_whose_agent_is_killed_is_named_and_the_run_goes_on(
    site: Site, undisturbed: Submitted, tmp_path: Path
) -> None:
    run = site.submit(tmp_path, "--set", "training.save_every=3")
    run.wait_for_step(5)
    second = run.nodes()[-1]
    kill(site.cluster.processes(second, "lft.cli.main launch"))
    run.done()
    assert f"the agent of {site.cluster.node(second)} has not been heard" in run.log
    assert run.exit_codes() == [75, 0]
    assert run.adapter() == undisturbed.adapter()
