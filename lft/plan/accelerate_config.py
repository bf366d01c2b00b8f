"""The accelerate configuration that starts the same ranks with `accelerate launch`."""

from pathlib import Path
from typing import Any

import yaml

from lft.core.settings import Precision, Strategy
from lft.plan.topology import Topology

MIXED_PRECISION: dict[Precision | None, str] = {"fp32": "no", "fp16": "fp16", "bf16": "bf16", None: "no"}
FIRST_NODE = "FIRST_NODE"
"""Stands for the address of the first node where the plan cannot know it; no host has this name, so none is reached."""
PORT = 29500  # accelerate's and torchrun's own

FSDP = {
    "fsdp_version": 2,
    "fsdp_reshard_after_forward": True,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    "fsdp_cpu_ram_efficient_loading": False,
    "fsdp_offload_params": False,
    "fsdp_activation_checkpointing": False,
}
"""Keys of FSDP 2 only: accelerate 1.15 warns of, or refuses, those of version 1."""


def accelerate_yaml(
    strategy: Strategy, topology: Topology, precision: Precision | None, deepspeed_json: Path | str | None = None
) -> str:
    """The text of accelerate.yaml, values final; `deepspeed_json` is where the zero strategies find theirs.

    MULTI_GPU also on a CPU: a MULTI_CPU file needs an MPI, and without one accelerate starts a single process and says
    nothing (accelerate 1.15). Where the precision is left to the checkpoint, the worker sets it.
    """
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": _distributed_type(strategy, topology),
        "mixed_precision": MIXED_PRECISION[precision],
        "num_machines": topology.nodes,
        "num_processes": topology.ranks,
        "machine_rank": 0,
        "main_training_function": "main",
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": topology.device == "cpu" and topology.ranks == 1,
        "debug": False,
    }
    command = "accelerate launch --config_file accelerate.yaml"
    if topology.nodes > 1:
        config |= {"main_process_ip": topology.first_node or FIRST_NODE, "main_process_port": PORT}
        command += f" --machine_rank NODE --main_process_ip {config['main_process_ip']}"
    if topology.gpus:
        config["gpu_ids"] = "all"
    if config["distributed_type"] == "DEEPSPEED":
        del config["mixed_precision"]  # it stands in deepspeed.json, and accelerate refuses it in both
        # the launcher `standard` is torchrun's; the others need ssh, and write the whole environment to a file
        config["deepspeed_config"] = {
            "deepspeed_config_file": str(deepspeed_json),
            "deepspeed_multinode_launcher": "standard",
            "zero3_init_flag": strategy == "zero3",
        }
    if config["distributed_type"] == "FSDP":
        config["fsdp_config"] = FSDP
    start = f"# the same ranks, started by accelerate: {command} -m lft.train.worker ORDER\n"
    return start + yaml.safe_dump(config, sort_keys=False)


def _distributed_type(strategy: Strategy, topology: Topology) -> str:
    if topology.ranks == 1:
        return "NO"
    return {"zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp": "FSDP"}.get(strategy, "MULTI_GPU")
