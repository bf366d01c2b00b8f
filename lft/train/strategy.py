"""How ranks share the work: the one place that tells accelerate and DeepSpeed, and that looks at what they made of it.

Each wrong way through accelerate trains too: a DeepSpeed or FSDP plug-in on CPU ranks becomes plain DDP, or every rank
believes that it is alone, and nothing says so (accelerate 1.15). So the state that accelerate would guess is made here, before
TrainingArguments exist, and the wrapped model is checked before the first step.
"""

from typing import Any

from peft import PeftModel
from torch import distributed, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lft.core.errors import LftError, PreflightError
from lft.core.precision import Device
from lft.core.rank import Rank, tell_accelerate, use_defaults
from lft.core.settings import Precision, Strategy, TrainingSettings
from lft.train.model import DTYPES

ZERO_STAGES: dict[Strategy, int] = {"zero2": 2, "zero3": 3}
SHARDED: tuple[Strategy, ...] = ("zero2", "zero3", "fsdp")


def usual_strategy(rank: Rank, gpus: int) -> Strategy:
    """What a caller of the library gets without asking: DDP under a launcher, all GPUs for one process with several."""
    if rank.world_size > 1:
        return "ddp"
    return "device-map" if gpus > 1 else "single"


def final_deepspeed(config: dict[str, Any], precision: Precision) -> dict[str, Any]:
    """The DeepSpeed configuration with the number type that the worker has settled.

    In half precision DeepSpeed trains float32 copies of the adapter; ZeRO-2 computes with a half-precision one.
    """
    halves: tuple[Precision, ...] = ("bf16", "fp16")
    return config | {half: config.get(half, {}) | {"enabled": precision == half} for half in halves}


def sharded_loading(
    strategy: Strategy, device: Device, deepspeed: dict[str, Any] | None, precision: Precision
) -> object | None:
    """Under ZeRO-3, what makes from_pretrained keep only this rank's part of each weight while it is alive."""
    if strategy != "zero3":
        return None
    _join_deepspeed(device)
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    assert deepspeed is not None
    return HfDeepSpeedConfig(final_deepspeed(deepspeed, precision))


def strategy_arguments(
    strategy: Strategy,
    rank: Rank,
    device: Device,
    *,
    deepspeed: dict[str, Any] | None,
    precision: Precision,
    layers: list[str],
) -> dict[str, Any]:
    """Tell accelerate the strategy, once the process group is there; returns what TrainingArguments take of it.

    `layers` are the class names of the model's layers, each of which FSDP2 gathers on its own.
    """
    if strategy not in SHARDED:
        return {}
    _make_state(strategy, rank, device)
    arguments: dict[str, Any] = {"accelerator_config": {"use_configured_state": True}}
    if strategy == "fsdp":
        wrap = {"auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "transformer_layer_cls_to_wrap": layers}
        # sharded: a full state would gather the frozen base on rank 0 for each checkpoint
        config = wrap | {"version": 2, "reshard_after_forward": True, "state_dict_type": "SHARDED_STATE_DICT"}
        return arguments | {"fsdp": True, "fsdp_config": config}
    assert deepspeed is not None
    return arguments | {"deepspeed": final_deepspeed(deepspeed, precision)}


def _make_state(strategy: Strategy, rank: Rank, device: Device) -> None:
    """Make accelerate's state as it would be on GPUs; on a CPU it has no process numbers and only upgrades MULTI_GPU."""
    tell_accelerate("USE_FSDP" if strategy == "fsdp" else "USE_DEEPSPEED")
    if strategy in ZERO_STAGES:
        _join_deepspeed(device)
    from accelerate import PartialState
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    AcceleratorState._reset_state(reset_partial_state=True)
    state = PartialState(backend=_backend(device))
    if strategy == "fsdp" and device == "cpu":
        state._shared_state.update(
            distributed_type=DistributedType.MULTI_GPU,
            num_processes=distributed.get_world_size(),
            process_index=distributed.get_rank(),
            local_process_index=rank.local_rank,
        )


def _join_deepspeed(device: Device) -> None:
    """Let DeepSpeed use the process group that is there; until it does, it takes this rank for the only one."""
    use_defaults({"DS_ACCELERATOR": device})
    from deepspeed import comm, ops

    # For CPU ranks DeepSpeed compiles a shared-memory op at first use, under a lock file that a killed rank leaves behind, and
    # on which every later one waits for ever (0.19.8). Without it gloo does the same work, and no compiler is needed.
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if not comm.is_initialized():
        comm.init_distributed(dist_backend=_backend(device), auto_mpi_discovery=False)


def _backend(device: Device) -> str:
    return "nccl" if device == "cuda" else "gloo"


def fsdp_precision(precision: Precision) -> MixedPrecisionPolicy | None:
    """FSDP2 computes in the base's type and adds up gradients in float32; accelerate's own policy would add in half.

    A unit may hold a frozen bf16 base and float32 adapters: FSDP2 wants one type among the trained parameters only.
    """
    if precision == "fp32":
        return None
    dtype = DTYPES[precision]
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=DTYPES["fp32"], output_dtype=dtype)


def check_order(
    strategy: Strategy, world_size: int, deepspeed: dict[str, Any] | None, settings: TrainingSettings, accumulation: int
) -> None:
    """Raise PreflightError where the strategy cannot be had with so many ranks, LftError where DeepSpeed is told else."""
    if (strategy in ("single", "device-map")) != (world_size == 1):
        needs = "one rank" if strategy in ("single", "device-map") else "two ranks or more"
        raise PreflightError(
            f"strategy {strategy} needs {needs}, and {world_size} train", next_step="use launch.strategy auto"
        )
    if strategy not in ZERO_STAGES:
        return
    told = deepspeed or {}
    wanted = {
        "train_micro_batch_size_per_gpu": settings.batch_size,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": settings.batch_size * accumulation * world_size,
        "gradient_clipping": settings.max_grad_norm,
    }
    wrong = [f"{key} is {told.get(key)}, not {value}" for key, value in wanted.items() if told.get(key) != value]
    stage = told.get("zero_optimization", {}).get("stage")
    if stage != ZERO_STAGES[strategy]:
        wrong.append(f"zero_optimization.stage is {stage}, not {ZERO_STAGES[strategy]}")
    if wrong:
        raise LftError(f"the order's DeepSpeed configuration disagrees with its settings: {'; '.join(wrong)}")


class CheckStrategy(TrainerCallback):
    """Stops before the first step where the model is not wrapped as planned."""

    def __init__(self, strategy: Strategy, world_size: int) -> None:
        self.strategy, self.world_size = strategy, world_size
        self.trainer: Any = None
        self.wrapper = ""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compare plan and model. Raises LftError."""
        wrapped = self.trainer.model_wrapped
        self.wrapper = type(wrapped).__name__
        ranks = distributed.get_world_size() if distributed.is_initialized() else 1
        believed = args.world_size
        if strategy_of(wrapped) != self.strategy or not ranks == believed == self.world_size:
            raise LftError(
                f"planned {self.strategy} over {self.world_size} ranks, got {strategy_of(wrapped)} ({self.wrapper}) over "
                f"{min(ranks, believed)}"
            )


def strategy_of(wrapped: nn.Module) -> str:
    """The strategy that a model, as the Trainer has it, really trains with."""
    if isinstance(wrapped, DistributedDataParallel):
        return "ddp"
    if isinstance(wrapped, FSDPModule):
        return "fsdp"
    if type(wrapped).__name__ == "DeepSpeedEngine":  # by name: DeepSpeed need not be installed
        stage: Any = wrapped.zero_optimization_stage
        return f"zero{stage()}"
    if not isinstance(wrapped, PeftModel):
        return "something else"
    return "device-map" if is_spread(wrapped) else "single"


def layer_classes(model: PeftModel) -> list[str]:
    """Class names of the model's layers, which are kept whole where it is cut."""
    names: Any = model.get_base_model()._no_split_modules
    return sorted(names or ())


def is_spread(model: nn.Module) -> bool:
    """Whether the layers are on several devices of one process."""
    return len(set(getattr(model, "hf_device_map", {}).values())) > 1
