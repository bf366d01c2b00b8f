"""accelerate's configuration: where a training runs, and how ranks share it. Model and data are not in it."""

from typing import Any

from lft.foreign.deepspeed import ON_DEVICE, deepspeed, stage
from lft.foreign.draft import AS_IN_LFT, Draft, Rule, all_of, fixed, missing, needless, to
from lft.foreign.fsdp import FSDP
from lft.foreign.values import flag, is_off, number, text, whole

NODES_MEET = "given when several nodes start: lft submit, or lft launch --rdzv HOST:PORT --node-rank K"


def kind(draft: Draft, value: Any) -> None:
    """How ranks share the work."""
    word = str(value).upper()
    if word == "NO":
        draft.set("launch.gpus", 0 if is_on_cpu(draft) else 1)
    elif _is_alone(draft) and word in ("MULTI_GPU", "DEEPSPEED", "FSDP"):
        draft.drop("one process shares nothing")
    elif word in ("MULTI_GPU", "MULTI_CPU"):
        draft.set("launch.strategy", "ddp")
    elif word == "FSDP":
        draft.set("launch.strategy", "fsdp")
    elif word == "DEEPSPEED":
        draft.drop("deepspeed_config says which stage")
    else:
        draft.lack("lft runs on NVIDIA GPUs and CPUs")


def processes(draft: Draft, value: Any) -> None:
    """Of all machines together there, per node here."""
    count, nodes = whole(value), whole(draft.values.get("num_machines") or 1)
    each = max(1, count // nodes)
    remark = f"{count} over {nodes} machines" if nodes > 1 else ""
    if is_on_cpu(draft):
        draft.set("launch.cpu_procs", each, remark)
    elif "launch.gpus" in draft.settings:
        draft.agree("launch.gpus", remark)
    else:
        draft.set("launch.gpus", each, remark)


def machines(draft: Draft, value: Any) -> None:
    """Nodes."""
    draft.set("launch.nodes", whole(value))


def zero_stage(draft: Draft, value: Any) -> None:
    """One process shares nothing."""
    if _is_alone(draft):
        draft.drop("one process shares nothing")
    else:
        stage(draft, value)


def precision(draft: Draft, value: Any) -> None:
    """The number type of what is computed."""
    word = str(value).lower()
    if word in ("bf16", "fp16"):
        draft.set("launch.precision", word)
    elif is_off(value):
        draft.set("launch.precision", "fp32")
    else:
        draft.lack("computes in 16 or 32 bits")


def devices(draft: Draft, value: Any) -> None:
    """Which GPUs."""
    if str(value).lower() == "all":
        draft.drop(AS_IN_LFT)
    else:
        draft.lack(f"say which in the environment: CUDA_VISIBLE_DEVICES={text(value)}")


def cpu(draft: Draft, value: Any) -> None:
    """Leave GPUs alone."""
    if flag(value):
        draft.set("launch.gpus", 0)
    else:
        draft.drop(AS_IN_LFT)


def size(draft: Draft, value: Any) -> None:
    """1 is no parallelism; that of data is what lft does."""
    if draft.key[-1].endswith(("dp_replicate_size", "dp_shard_size")) or (str(value).isdigit() and int(value) == 1):
        draft.drop("ranks share rows, or the model too, by launch.strategy")
    else:
        draft.lack("no sequence, context or tensor parallelism")


def clipping(draft: Draft, value: Any) -> None:
    """The norm of gradients."""
    draft.drop("decided by the trainer") if value == "auto" else draft.set("training.max_grad_norm", number(value))


def is_on_cpu(draft: Draft) -> bool:
    """Whether no GPU is to be used."""
    asked = draft.values.get("use_cpu", False)
    return str(asked).lower() == "true" or str(draft.values.get("distributed_type", "")).upper() == "MULTI_CPU"


def _is_alone(draft: Draft) -> bool:
    return whole(draft.values.get("num_processes") or 1) == 1


ACCELERATE: dict[str, Rule] = {
    "compute_environment": fixed("LOCAL_MACHINE", "lft starts ranks on machines, not in SageMaker"),
    "distributed_type": kind,
    "num_processes": processes,
    "num_machines": machines,
    "mixed_precision": precision,
    "gpu_ids": devices,
    "use_cpu": cpu,
    "deepspeed_config.zero_stage": zero_stage,
    "deepspeed_config.deepspeed_config_file": deepspeed,
    "deepspeed_config.offload_optimizer_device": missing(ON_DEVICE),
    "deepspeed_config.offload_param_device": missing(ON_DEVICE),
    "deepspeed_config.gradient_clipping": clipping,
    "deepspeed_config.gradient_accumulation_steps": needless(
        "follows from training.global_batch_size, training.batch_size and the ranks"
    ),
    "deepspeed_config.*": needless("lft writes DeepSpeed's configuration and starts its ranks by itself"),
    **{f"fsdp_config.{key}": rule for key, rule in FSDP.items()},
    "gradient_clipping": to("training.max_grad_norm", number),
    "parallelism_config.*": size,
    "fp8_config": missing("computes in 16 or 32 bits"),
    "dynamo_config": missing("the model is not compiled; the results are the same"),
    "megatron_lm_config": missing("no tensor or pipeline parallelism"),
    **all_of(
        needless,
        {
            NODES_MEET: "machine_rank main_process_ip main_process_port rdzv_backend same_network deepspeed_hostfile",
            "no TPU": "tpu_env tpu_use_cluster tpu_use_sudo tpu_name tpu_zone commands command_file downcast_bf16",
            "lft gives each rank its share of the cores": "enable_cpu_affinity mpirun_config ipex_config",
            "lft's ranks run lft": "main_training_function debug gradient_accumulation_steps",
        },
    ),
}
