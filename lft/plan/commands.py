"""How to start the ranks of a plan, as one would type it, once its files are written."""

import shlex

from lft.plan.accelerate_config import FIRST_NODE, PORT
from lft.plan.launch_plan import LaunchPlan


def command_line(plan: LaunchPlan) -> str:
    """The command of a rank."""
    return shlex.join(["python", *plan.argv("train")[1:]])


def other_launchers(plan: LaunchPlan) -> tuple[str, ...]:
    """Commands that start all ranks of a node without lft; on several nodes, NODE is the node's number, from 0."""
    topology, worker = plan.topology, plan.argv("train")[1:]
    if topology.ranks == 1:
        return ()
    first, local = topology.first_node or FIRST_NODE, str(topology.ranks_per_node)
    accelerate = ["accelerate", "launch", "--config_file", str(plan.run_dir.accelerate_config)]
    torchrun = ["torchrun", "--nproc-per-node", local]
    deepspeed = ["deepspeed", "--num_gpus", local, "--no_local_rank"]
    if topology.nodes > 1:
        accelerate += ["--machine_rank", "NODE", "--main_process_ip", first]
        meeting = ["--master-addr", first, "--master-port", str(PORT)]
        torchrun += ["--nnodes", str(topology.nodes), "--node-rank", "NODE", *meeting]
        deepspeed += ["--num_nodes", str(topology.nodes), "--no_ssh", "--node_rank", "NODE", "--master_addr", first]
    starts = [[*accelerate, *worker], [*torchrun, *worker]]
    # deepspeed's launcher reads CUDA_VISIBLE_DEVICES as numbers, and fails on a UUID (0.19.8)
    if plan.strategy in ("zero2", "zero3") and all(token.isdigit() for token in topology.gpus):
        starts.append([*deepspeed, "--module", *worker[1:]])
    return tuple(map(shlex.join, starts))
