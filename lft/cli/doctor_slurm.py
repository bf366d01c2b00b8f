"""lft doctor --slurm: the nodes of an allocation, checked by one process on each of them."""

import os
import shutil
import socket
import sys

import click

from lft.core.allocation import SlurmAllocation, node_names, slurm_allocation
from lft.core.errors import DONE, PREFLIGHT
from lft.core.network import shared_address
from lft.core.rank import environment_for_steps, slurm_variables
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.core.words import counted, data_size
from lft.launch.doctor import NodeFacts, examine, findings, gather, ping
from lft.launch.team import Member, Team
from lft.plan.nodes import refuse_wrong_step
from lft.plan.sbatch_script import job_shape, site_options, srun_options

JOIN_SECONDS = 60.0


def examine_allocation(settings: RunSettings) -> int:
    """This node's part inside a step of an allocation; outside of one, start the step. Returns the exit code."""
    allocation = slurm_allocation(slurm_variables())
    if allocation is None or not allocation.in_step:
        return _start_step(settings)
    refuse_wrong_step(settings.launch.nodes, allocation)
    return _node(settings, allocation)


def _start_step(settings: RunSettings) -> int:
    """Become srun, which asks for the nodes where this shell has none yet."""
    shape, folder = job_shape(settings), settings.output_dir
    again = ["doctor", "--slurm", "--nodes", str(shape.nodes), "--gpus", str(shape.gpus), "--output-dir", str(folder)]
    argv = ["srun", *site_options(settings.slurm), *srun_options(shape), sys.executable, "-m", "lft.cli.main", *again]
    click.echo(f"  asking     SLURM for {shape}")
    sys.stdout.flush()
    os.execvpe(argv[0], argv, environment_for_steps())


def _node(settings: RunSettings, allocation: SlurmAllocation) -> int:
    """One node's part; the first one says what was found."""
    names, node = node_names(allocation.node_list), allocation.node_index or 0
    address = shared_address(allocation.launch_address)
    name = names[node] if node < len(names) else socket.gethostname()
    me = Member(node=node, name=name, address=address, pid=os.getpid())
    folder = RunDir(settings.output_dir).slurm / f"doctor-{allocation.life}.{allocation.step_id}"
    with Team(folder, me, names) as team:
        members = team.wait_for_all(JOIN_SECONDS)
        answers = ping(team) if node == 0 else {}
        examine(team, settings.output_dir, [member.address for member in members])
        if node > 0:
            team.answer(0, has_failed=False)
            return DONE
        team.settle()
        nodes = [_with_ping(facts, answers.get(number)) for number, facts in enumerate(gather(team))]
        wrong = findings(nodes, settings.launch.gpus if isinstance(settings.launch.gpus, int) else 0)
    click.echo("\n".join(_lines(nodes, wrong)))
    shutil.rmtree(folder, ignore_errors=True)
    return PREFLIGHT if wrong else DONE


def _with_ping(facts: NodeFacts, answer: tuple[float, float] | None) -> NodeFacts:
    delay, clock = answer or (0.0, 0.0)
    return facts.model_copy(update={"delay_seconds": delay, "clock_seconds": clock})


def _lines(nodes: list[NodeFacts], wrong: list[str]) -> list[str]:
    lines = []
    for node in nodes:
        times = [value for value in node.pairs.values() if isinstance(value, float)]
        parts = [f"Python {node.python}", counted(len(node.packages), "package"), counted(len(node.gpus), "GPU")]
        parts.append(f"{data_size(min(node.free_bytes.values()))} free")
        parts += [f"shared folder {node.delay_seconds:.2f} s"] if node.delay_seconds else []
        parts += [f"all-reduce of 4 MiB {max(times):.3f} s at most"] if times else []
        lines.append(f"  {node.name:<12} {', '.join(parts)}")
    lines += [f"  wrong      {line}" for line in wrong]
    return [*lines, "  " + (f"{counted(len(wrong), 'problem')} found" if wrong else "nothing is wrong")]
