"""What the agent of another node than the first does: the leader's jobs, with this node's ranks and devices."""

from collections.abc import Callable, Sequence

from lft.core.errors import DONE, SAVED, PreflightError
from lft.core.events import Event
from lft.core.gpus import Gpu
from lft.core.order import WorkerReport
from lft.core.run_dir import RunDir
from lft.launch.company import seldom
from lft.launch.node_job import Around, do_job
from lft.launch.stopping import StopRequests
from lft.launch.supervisor import Ended
from lft.launch.team import Team, Word
from lft.launch.triage import hang_report, report_of
from lft.plan.launch_plan import LaunchPlan
from lft.plan.nodes import as_node


def follow(
    team: Team, run_dir: RunDir, gpus: Sequence[Gpu], stop: StopRequests, observe: Callable[[Event], None]
) -> int:
    """Do the leader's jobs until it says with which exit code to leave. Raises RendezvousError where the leader goes."""
    word = team.next_word(after=0)
    while word.job is not None:
        team.answer(word.number, has_failed=_do(word, team, run_dir, gpus, stop, observe))
        word = team.next_word(after=word.number)
    return word.exit_code


def _do(
    word: Word,
    team: Team,
    run_dir: RunDir,
    gpus: Sequence[Gpu],
    stop: StopRequests,
    observe: Callable[[Event], None],
) -> bool:
    """One job; whether it failed here. What a rank could not report itself is reported for it, where the leader looks."""
    assert word.job is not None
    attempt = next(each for each in run_dir.attempts() if each.number == word.attempt)
    plan = LaunchPlan.model_validate_json(attempt.plan.read_bytes())
    try:
        plan = as_node(plan, team.me.node, gpus)
    except PreflightError as error:
        first = team.me.node * plan.ranks_per_node(word.job)
        WorkerReport.of_failure(first, "starting", error, "").save(attempt.failure(first))
        return True
    is_over = seldom(lambda: team.is_over(word.number))
    ended, _ = do_job(plan, word.job, Around(stop=stop, observe=observe, is_called_off=is_over))
    return _report_failures(ended, plan)


def _report_failures(ended: Ended, plan: LaunchPlan) -> bool:
    attempt = plan.attempt_dir
    if ended.hang is not None:
        hang_report(ended.hang, attempt).save(attempt.failure(ended.hang.rank))
    for exit_ in ended.exits:
        failure = attempt.failure(exit_.rank)
        report = report_of(exit_, attempt) if exit_.has_failed and not failure.exists() else None
        if report is not None:
            report.save(failure)
    return any(exit_.code not in (DONE, SAVED) or exit_.too_early for exit_ in ended.exits)
