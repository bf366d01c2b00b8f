"""Which failures are worth another attempt, and when to stop trying; what to type where a human has to."""

import json
from pathlib import Path

import pytest

from lft.core.checkpoints import MANIFEST
from lft.core.events import Event
from lft.core.order import WorkerReport
from lft.launch.agent import Agent
from lft.launch.restart import Brake, benchmark_again, may_pass, next_step
from lft.launch.resuming import brake_of
from tests.launch.test_agent import plan_in
from tests.runs import beat, checkpoint, end, new_attempt


@pytest.mark.parametrize(
    ("exit_code", "passes"),
    [(2, False), (3, False), (67, False), (70, False), (64, True), (65, True), (66, True), (137, True), (139, True)],
)
def test_only_what_may_pass_is_tried_again(exit_code: int, passes: bool) -> None:
    assert may_pass(WorkerReport(ok=False, rank=0, stage="training", exit_code=exit_code)) is passes


@pytest.mark.parametrize(
    ("steps", "holds"),
    [
        ([0], False),
        ([0, 0], True),
        ([12, 12], False),
        ([12, 12, 12], True),
        ([12, 8, 14, 14], False),
        ([3, 9, 20], False),
    ],
)
def test_two_attempts_without_a_new_step_are_the_last(steps: list[int], holds: bool) -> None:
    brake = Brake()
    for reached in steps:
        assert not brake.holds
        brake.note(reached)
    assert brake.holds is holds


def test_a_run_that_fails_for_good_ends_with_65_after_two_attempts_and_says_why(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, "train-fails", launch={"cpu_procs": 2, "restarts": 5})
    agent = Agent(plan, lambda _: None)
    outcome = agent.run()
    assert (outcome.exit_code, agent.plan.attempt) == (65, 1)
    assert outcome.problems == ("not started again: 2 attempts in a row got no further than step 0",)
    assert outcome.failure is not None
    assert outcome.failure.report.message == "no train", "the error itself stays in sight"


def test_a_failure_that_passes_costs_one_restart_and_the_run_is_finished(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, "train-fails-once", launch={"cpu_procs": 2, "restarts": 1})
    said: list[str] = []
    agent = Agent(plan, lambda event: said.append(event.data.get("line", "")))
    outcome = agent.run()
    assert (outcome.exit_code, agent.plan.attempt) == (0, 1)
    assert outcome.report is not None
    restart = next(line for line in said if line.startswith("restart"))
    assert "no train; going on from the first step, 0 restarts left" in restart
    codes = [json.loads(attempt.outcome.read_text())["exit_code"] for attempt in plan.run_dir.attempts()]
    assert codes == [64, 0], "each attempt keeps how it ended"


def test_a_restart_goes_on_from_the_newest_complete_checkpoint(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, "train-fails-once", launch={"cpu_procs": 2, "restarts": 1})
    said: list[str] = []

    def save_as_it_trains(event: Event) -> None:
        said.append(event.data.get("line", ""))
        if event.kind == "stage" and not plan.run_dir.checkpoint(10).exists():
            for step in (10, 20, 30, 40):
                checkpoint(tmp_path / "out", step)
            (plan.run_dir.checkpoint(30) / "weights").write_text("abd")
            (plan.run_dir.checkpoint(40) / MANIFEST).unlink()

    agent = Agent(plan, save_as_it_trains)
    agent.run()
    assert agent.plan.resume_from == plan.run_dir.checkpoint(20), "a bit of 30 has flipped, 40 was never finished"
    assert sorted(path.name for path in plan.run_dir.before_attempt(1).iterdir()) == ["checkpoint-30", "checkpoint-40"]
    order = json.loads(agent.attempt.order("train").read_text())
    assert order["resume_from"] == str(plan.run_dir.checkpoint(20))


def test_after_running_out_of_memory_the_next_command_needs_less_and_keeps_the_global_batch(tmp_path: Path) -> None:
    plan = plan_in(tmp_path / "my run")
    report = WorkerReport(ok=False, rank=0, stage="training", exit_code=67)
    typed = next_step(report, plan, tmp_path / "checkpoint-400", None)
    assert typed.startswith(f"lft resume '{tmp_path}/my run/out' --set training.batch_size=2")
    assert "--set training.global_batch_size=32" in typed
    assert typed.endswith("from checkpoint-400")


@pytest.mark.parametrize(
    ("attempts", "without"),
    [
        ([(0, 137)], 1),
        ([(0, 75), (0, 75)], 2),
        ([(0, 137), (0, 130)], 1),
        ([(0, 137), (0, 137), (7, 137)], 0),
        ([(0, 75), (7, 75), (7, 75)], 1),
    ],
    ids=str,
)
def test_the_brake_remembers_earlier_launches_but_not_those_that_their_user_stopped(
    attempts: list[tuple[int, int]], without: int, tmp_path: Path
) -> None:
    for step, code in attempts:
        plan = new_attempt(tmp_path)
        beat(plan.attempt_dir, 0, "training", step)
        end(plan.attempt_dir, code)
    assert brake_of(plan.run_dir).without_a_step == without


def test_the_brake_forgets_what_was_before_the_run_began_anew(tmp_path: Path) -> None:
    for _ in range(3):
        plan = new_attempt(tmp_path)
        end(plan.attempt_dir, 137)
    plan.run_dir.before_attempt(2).mkdir()
    assert brake_of(plan.run_dir).without_a_step == 1


def test_a_job_that_its_scheduler_starts_again_and_again_without_a_step_ends_with_65(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    codes = []
    for number in range(2):
        plan = plan_in(tmp_path, "train-is-signalled").model_copy(update={"attempt": number})
        outcome = Agent(plan, lambda _: None).run()
        codes.append(outcome.exit_code)
    assert codes == [75, 65], "75 would have the job requeued for ever"
    assert outcome.problems == ("not started again: 2 attempts in a row got no further than step 0",)


def test_a_benchmark_that_ran_out_of_memory_is_to_be_made_with_half_the_prompts_at_a_time(tmp_path: Path) -> None:
    plan = plan_in(tmp_path, benchmark={"batch_size": 12})
    out = tmp_path / "out"
    ran_out = WorkerReport(ok=False, rank=0, stage="answering", exit_code=67)
    assert benchmark_again(plan) == f"lft benchmark {out}"
    assert benchmark_again(plan, ran_out) == f"lft benchmark {out} --set benchmark.batch_size=6"
