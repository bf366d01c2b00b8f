"""What happens to jobs, done to real ones on a real SLURM: each run ends with the undisturbed run's adapter, bit for bit."""

import signal
from pathlib import Path

import pytest

from tests.conftest import run_lft
from tests.slurm_cluster.cluster import wait_until
from tests.slurm_cluster.jobs import RUN_FILE, STEPS, Site, Submitted, kill, without_scontrol


def test_two_nodes_make_the_adapter_that_two_ranks_of_one_machine_make(
    site: Site, undisturbed: Submitted, tmp_path: Path
) -> None:
    assert undisturbed.adapter() == here(site, tmp_path, ranks=2).adapter()
    assert undisturbed.attempts() == 1


@pytest.mark.long
def test_three_nodes_make_the_adapter_that_three_ranks_of_one_machine_make(site: Site, tmp_path: Path) -> None:
    run = site.submit(tmp_path / "there", nodes=3).done()
    assert len(run.last_nodes()) == 3
    assert run.adapter() == here(site, tmp_path, ranks=3).adapter()


def here(site: Site, folder: Path, ranks: int) -> Submitted:
    """The same run on this machine alone."""
    run_file = folder / "run.yaml"
    run_file.write_text(RUN_FILE.format(model=site.model, data=site.data, nodes=1, steps=STEPS))
    done = run_lft("launch", run_file, "--output-dir", "out", "--cpu-procs", ranks, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Submitted(site, folder / "out", "")


def test_a_preempted_run_goes_on_by_itself(site: Site, undisturbed: Submitted, tmp_path: Path) -> None:
    run = site.submit(tmp_path)
    run.wait_for_step(5)
    run.preempt(run.nodes()[-1])
    run.done()
    assert run.exit_codes() == [75, 0]
    assert "PENDING" in run.seen[run.seen.index("RUNNING") :]
    assert run.steps_begun_at()[1] >= 5
    assert run.adapter() == undisturbed.adapter()


@pytest.mark.long
def test_a_preempted_run_that_hears_its_own_signal_goes_on_too(
    other_site: Site, undisturbed: Submitted, tmp_path: Path
) -> None:
    run = other_site.submit(tmp_path)
    run.wait_for_step(5)
    run.preempt(run.nodes()[-1])
    run.done()
    assert run.exit_codes() == [75, 0]
    assert run.adapter() == undisturbed.adapter()


@pytest.mark.long
def test_where_an_exit_code_is_enough_to_be_requeued_it_is_used(
    other_site: Site, undisturbed: Submitted, tmp_path: Path
) -> None:
    run = other_site.submit(tmp_path, "--set", f"slurm.setup=[{without_scontrol(tmp_path)}]")
    run.wait_for_step(5)
    other_site.cluster.ask("scancel", "-s", "USR1", run.job_id)
    wait_until(lambda: run.exit_codes() == [75, 0], 240)
    assert run.adapter() == undisturbed.adapter()


@pytest.mark.long
def test_a_signal_to_the_job_saves_and_requeues_it(site: Site, undisturbed: Submitted, tmp_path: Path) -> None:
    run = site.submit(tmp_path)
    run.wait_for_step(5)
    site.cluster.ask("scancel", "-s", "USR1", run.job_id)
    run.done()
    assert run.exit_codes() == [75, 0]
    assert run.adapter() == undisturbed.adapter()


@pytest.mark.long
def test_a_cancelled_run_saves_and_does_not_come_back(site: Site, tmp_path: Path) -> None:
    run = site.submit(tmp_path)
    run.wait_for_step(5)
    site.cluster.ask("scancel", run.job_id)
    assert run.wait() == "CANCELLED"
    assert site.cluster.ask("squeue", "-h", "-t", "pending", "-j", run.job_id) == ""


@pytest.mark.long
def test_a_rank_that_crashes_ends_the_job_with_its_own_error(site: Site, tmp_path: Path) -> None:
    run = site.submit(tmp_path)
    run.wait_for_step(5)
    kill(site.cluster.processes(run.nodes()[-1], "lft.train.worker"), signal.SIGSEGV)
    assert run.wait() == "FAILED"
    assert run.attempts() == 1
    assert "rank 1" in site.lft("why", run.output_dir, cwd=tmp_path).stdout


@pytest.mark.long
def test_with_restarts_all_nodes_begin_again_in_the_same_job(
    site: Site, undisturbed: Submitted, tmp_path: Path
) -> None:
    run = site.submit(tmp_path, "--restarts", 1, "--set", "training.save_every=3")
    run.wait_for_step(5)
    kill(site.cluster.processes(run.nodes()[-1], "lft.train.worker"), signal.SIGSEGV)
    run.done()
    assert run.exit_codes() == [0]
    assert run.attempts() == 2
    assert run.adapter() == undisturbed.adapter()


@pytest.mark.long
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


@pytest.mark.long
def test_a_node_that_dies_is_replaced_and_the_run_goes_on(site: Site, undisturbed: Submitted, tmp_path: Path) -> None:
    run = site.submit(tmp_path, "--set", "training.save_every=3")
    run.wait_for_step(5)
    second = run.nodes()[-1]
    site.cluster.kill_node(second)
    try:
        run.done()
    finally:
        site.cluster.start_node(second)
    assert run.attempts() >= 2
    assert second not in run.last_nodes()
    assert run.adapter() == undisturbed.adapter()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_run_that_needs_more_time_than_its_limit_takes_as_many_lives_as_it_needs(site: Site, tmp_path: Path) -> None:
    long_steps = ("--set", "training.global_batch_size=256")
    whole = site.submit(tmp_path / "whole", *long_steps, steps=60).done(600)
    run = site.submit(tmp_path / "parts", *long_steps, "--time", "1", steps=60).done(900)
    codes = run.exit_codes()
    assert len(codes) > 1
    assert set(codes[:-1]) == {75}
    assert "TIMEOUT" not in run.seen
    assert run.adapter() == whole.adapter()


@pytest.mark.long
def test_the_agent_stops_by_itself_before_the_time_limit(site: Site, tmp_path: Path) -> None:
    late = (
        "--set",
        'slurm.directives=["--signal=USR1@1"]',
    )  # SLURM warns 1 to 31 s before the end, the agent stops at 45
    run = site.submit(tmp_path, *late, "--time", "3", nodes=1, steps=100_000)
    wait_until((run.run_dir.run / "attempt-0" / "outcome.json").exists, 240)
    assert "after the time limit came near" in site.lft("status", run.output_dir, cwd=tmp_path).stdout
    assert run.exit_codes() == [75]
    site.cluster.ask("scancel", run.job_id)


@pytest.mark.long
def test_two_jobs_on_the_same_nodes_do_not_meet(site: Site, undisturbed: Submitted, tmp_path: Path) -> None:
    nodes = ["--set", f'slurm.directives=["--nodelist={site.cluster.prefix}n[1-2]"]']
    first, second = (site.submit(tmp_path / name, *nodes) for name in ("first", "second"))
    first.wait_for_step(1)
    assert second.state() == "RUNNING"
    assert first.done().adapter() == second.done().adapter() == undisturbed.adapter()


@pytest.mark.long
def test_an_array_makes_a_run_of_each_element_and_a_table(site: Site, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("- {lora.r: 2}\n- {lora.r: 4, training.learning_rate: 1.0e-3}\n- {training.max_steps: 5}\n")
    run = site.submit(tmp_path / "sweep", "--array", sweep, nodes=1, steps=10)
    elements = [Submitted(site, run.output_dir / str(number), "") for number in range(3)]
    elements[1].wait_for_step(2)
    site.cluster.ask("scancel", "-s", "USR1", elements[1].job_id)
    digests = {element.done().adapter() for element in elements}
    assert len(digests) == 3
    assert [element.exit_codes() for element in elements] == [[0], [75, 0], [0]]
    table = site.lft("status", run.output_dir, cwd=tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in table] == ["0", "1", "2"]
    assert all("done" in line and "loss" in line for line in table)
    assert "lora.r=4, training.learning_rate=0.001" in table[1]


@pytest.mark.long
def test_where_jobs_may_not_be_requeued_another_one_goes_on(site: Site, undisturbed: Submitted, tmp_path: Path) -> None:
    setup = ["--set", f"slurm.setup=[{without_scontrol(tmp_path)}]"]
    run = site.submit(tmp_path, *setup)
    first = run.job_id
    run.wait_for_step(5)
    site.cluster.ask("scancel", "-s", "USR1", first)
    run.started_over(first)
    run.done()
    assert run.job_id != first
    assert run.adapter() == undisturbed.adapter()


@pytest.mark.long
def test_a_submitted_run_that_was_stopped_is_resumed_by_another_job(
    site: Site, undisturbed: Submitted, tmp_path: Path
) -> None:
    run = site.submit(tmp_path)
    first = run.job_id
    run.wait_for_step(5)
    stopped = site.lft("stop", run.output_dir, cwd=tmp_path)
    assert "exit 130" in stopped.stdout, stopped.stdout + stopped.stderr
    assert run.wait() == "FAILED"
    assert site.lft("resume", run.output_dir, cwd=tmp_path).returncode == 0
    assert run.job_id != first
    run.done()
    assert run.adapter() == undisturbed.adapter()


@pytest.mark.long
def test_inside_salloc_launch_starts_the_step_itself(site: Site, undisturbed: Submitted, tmp_path: Path) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(RUN_FILE.format(model=site.model, data=site.data, nodes=2, steps=STEPS))
    done = site.run("salloc", "-N2", "-c1", *site.python, "launch", run_file, "--output-dir", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert Submitted(site, tmp_path / "out", "").adapter() == undisturbed.adapter()
