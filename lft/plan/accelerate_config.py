"""The accelerate configuration that starts the same ranks with `accelerate launch`."""

from typing import Any

import yaml

from lft.core.settings import Precision
from lft.plan.topology import Topology

MIXED_PRECISION: dict[Precision | None, str] = {"fp32": "no", "fp16": "fp16", "bf16": "bf16", None: "no"}


def accelerate_yaml(topology: Topology, precision: Precision | None) -> str:
    """The text of accelerate.yaml, values final.

    MULTI_GPU also on a CPU: a MULTI_CPU file needs an MPI, and without one accelerate starts a single process and says
    nothing (accelerate 1.15). Where the precision is left to the checkpoint, the worker sets it.
    """
    config: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU" if topology.ranks > 1 else "NO",
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
    if topology.gpus:
        config["gpu_ids"] = "all"
    command = "accelerate launch --config_file accelerate.yaml -m lft.train.worker ORDER"
    return f"# the same ranks, started by accelerate: {command}\n" + yaml.safe_dump(config, sort_keys=False)
