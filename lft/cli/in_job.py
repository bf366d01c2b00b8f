"""lft launch inside a SLURM job: one agent a node, the first of which leads; outside a step, the step is started first."""

import os
import shlex
import socket
import sys

import click

from lft.cli.continuing import AUTO, Intent, intend, refuse_running
from lft.cli.work import work
from lft.core.allocation import SlurmAllocation, node_names
from lft.core.errors import BUG, STOPPED, LftError, PreflightError, StoppedError
from lft.core.files import write_text
from lft.core.gpus import find_gpus
from lft.core.network import shared_address
from lft.core.rank import environment_for_steps
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.core.settings_file import to_yaml
from lft.launch.company import InJob
from lft.launch.follower import follow
from lft.launch.stopping import StopRequests
from lft.launch.team import Member, Team
from lft.launch.time_limit import TimeLimit
from lft.plan.nodes import in_step, refuse_wrong_step
from lft.plan.sbatch_script import SETTINGS, JobShape, srun_options


def launch_in_job(
    settings: RunSettings, allocation: SlurmAllocation, resume: str = AUTO, *, explicit: bool = False
) -> int:
    """This node's part of a run; returns the exit code, which is the first node's on every node."""
    if not allocation.in_step:
        start_step(settings, allocation, ["--resume", resume, *(["--explicit"] if explicit else [])])
    refuse_wrong_step(settings.launch.nodes, allocation)
    run_dir, node = RunDir(settings.output_dir), allocation.node_index or 0
    names = node_names(allocation.node_list)
    me = Member(
        node=node,
        name=names[node] if node < len(names) else socket.gethostname(),
        address=shared_address(allocation.launch_address),
        pid=os.getpid(),
    )
    stop = StopRequests(run_dir.stop_request)
    folder = run_dir.slurm / f"team-{allocation.life}.{allocation.step_id}"
    with Team(folder, me, names) as team, stop.listening(forget=node == 0):
        if node > 0:
            return follow(team, run_dir, find_gpus(), stop, lambda event: None)
        code = BUG
        try:
            code = _lead(settings, allocation, team, stop, resume, explicit=explicit)
        except LftError as error:
            code = STOPPED if stop.by_user else error.exit_code
            raise
        finally:
            write_text(run_dir.slurm / f"exit-{allocation.life}", f"{code}\n")
            team.dismiss(code)
    return code


def start_step(settings: RunSettings, allocation: SlurmAllocation, options: list[str]) -> None:
    """Become srun, with one agent a node: for the shell of salloc, or of a batch script. Raises PreflightError."""
    run_file = RunDir(settings.output_dir).slurm / SETTINGS
    write_text(run_file, to_yaml(settings))
    launch = settings.launch
    gpus = launch.gpus if isinstance(launch.gpus, int) else allocation.gpus_on_node or 0
    shape = JobShape(launch.nodes, gpus, settings.slurm.cpus_per_task or allocation.cpus_on_node or 1)
    argv = ["srun", *srun_options(shape), sys.executable, "-m", "lft.cli.main", "launch", str(run_file), *options]
    click.echo(f"  step       {shlex.join(argv)}")
    sys.stdout.flush()
    try:
        os.execvpe(argv[0], argv, environment_for_steps())
    except FileNotFoundError:
        raise PreflightError(
            f"srun is not here, and it is what starts ranks on {launch.nodes} nodes",
            next_step=f"on the host: srun --nodes={launch.nodes} --ntasks-per-node=1 CONTAINER lft launch {run_file}",
        ) from None


def _leave_if_stopped(stop: StopRequests) -> None:
    if stop.look():
        raise StoppedError("stopped before all nodes had come; nothing was lost")


def _lead(
    settings: RunSettings,
    allocation: SlurmAllocation,
    team: Team,
    stop: StopRequests,
    resume: str,
    *,
    explicit: bool,
) -> int:
    """Wait for the other nodes, decide what is to be done, and do it with them."""
    run_dir = RunDir(settings.output_dir)
    refuse_running(run_dir)
    limit = TimeLimit(allocation.job_id, run_dir.events / "rank-0.jsonl")
    team.may_go_on = lambda: _leave_if_stopped(stop)
    team.wait_for_all(settings.launch.join_timeout_seconds)
    team.may_go_on = lambda: None
    intent = intend(settings, resume, explicit=explicit)
    intent = Intent(in_step(intent.plan, team.me.address), intent.tasks)
    return work(intent, InJob(team, allocation.job_id, limit), stop)
