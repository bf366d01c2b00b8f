"""How to start the ranks of a plan, as one would type it, once its files are written."""

import shlex

from lft.core.rank import CUDA_VISIBLE_DEVICES
from lft.plan.accelerate_config import FIRST_NODE, PORT
from lft.plan.launch_plan import LaunchPlan


def command_line(plan: LaunchPlan) -> str:
    """The command of a rank. A rank alone must not see GPUs that it does not use: the Trainer would take them too."""
    return shlex.join([*_chosen_gpus(plan), "python", *plan.argv("train")[1:]])


def other_launchers(plan: LaunchPlan) -> tuple[str, ...]:
    """Commands that start all ranks of a node without lft; on several nodes, NODE is the node's number, from 0."""
    topology, worker = plan.topology, plan.argv("train")[1:]
    if topology.ranks == 1:
        return ()
    first, local = topology.first_node or FIRST_NODE, str(topology.ranks_per_node)
    accelerate = ["accelerate", "launch", "--config_file", str(plan.run_dir.accelerate_config)]
    torchrun = ["torchrun", "--nproc-per-node", local]
    if topology.nodes > 1:
        accelerate += ["--machine_rank", "NODE", "--main_process_ip", first]
        meeting = ["--master-addr", first, "--master-port", str(PORT)]
        torchrun += ["--nnodes", str(topology.nodes), "--node-rank", "NODE", *meeting]
    starts = [[*_chosen_gpus(plan), *accelerate, *worker], [*_chosen_gpus(plan), *torchrun, *worker]]
    # deepspeed's launcher (0.19.8) needs a host file and ssh for several nodes, and knows GPUs 0, 1, 2, ... only
    first_gpus = topology.gpus == tuple(map(str, range(len(topology.gpus))))
    if plan.strategy in ("zero2", "zero3") and topology.nodes == 1 and first_gpus:
        starts.append(["deepspeed", "--num_gpus", local, "--no_local_rank", "--module", *worker[1:]])
    return tuple(map(shlex.join, starts))


def _chosen_gpus(plan: LaunchPlan) -> list[str]:
    gpus = plan.topology.gpus
    return [f"{CUDA_VISIBLE_DEVICES}={','.join(gpus)}"] if gpus else []
