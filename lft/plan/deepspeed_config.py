"""The DeepSpeed configuration of a run: every value final, none "auto"."""

from typing import Any, Literal

from lft.core.settings import Precision
from lft.plan.batch import Batch

ZeroStrategy = Literal["zero2", "zero3"]

REDUCE_BUCKET_ELEMENTS = 50_000_000
"""DeepSpeed's 5e8 would set aside 2 GB of every GPU in float32; the gradients of an adapter are 1e6 to 1e8 elements."""
ALLGATHER_BUCKET_ELEMENTS = 50_000_000  # of the adapter's updated weights
PREFETCH_BUCKET_ELEMENTS = 50_000_000  # DeepSpeed's default
PERSISTENT_ELEMENTS = 100_000  # DeepSpeed's default
NEVER = 2**31 - 1  # in steps


def deepspeed_config(
    strategy: ZeroStrategy,
    batch: Batch,
    precision: Precision | None,
    max_grad_norm: float,
    hidden_size: int | None = None,
) -> dict[str, Any]:
    """The content of deepspeed.json for the Trainer's own optimizer and schedule.

    `precision` None is decided by the worker: neither bf16 nor fp16 is enabled here, and the worker enables the one it
    takes. `max_grad_norm` 0 clips nothing. With the model's `hidden_size`, buckets are those that transformers 5 derives
    from it (integrations/deepspeed.py, trainer_config_finalize): hidden² elements to reduce, 0.9 hidden² to prefetch,
    parameters below 10 hidden kept whole on every rank.
    """
    zero: dict[str, Any] = {
        "stage": 3 if strategy == "zero3" else 2,
        # a stage-2 step reduces an adapter's gradients only, too little to be worth a second bucket
        "overlap_comm": strategy == "zero3",
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "reduce_bucket_size": hidden_size**2 if hidden_size else REDUCE_BUCKET_ELEMENTS,
        "allgather_bucket_size": ALLGATHER_BUCKET_ELEMENTS,
    }
    if strategy == "zero3":
        zero |= {
            "stage3_prefetch_bucket_size": int(0.9 * hidden_size**2) if hidden_size else PREFETCH_BUCKET_ELEMENTS,
            "stage3_param_persistence_threshold": 10 * hidden_size if hidden_size else PERSISTENT_ELEMENTS,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            # the adapter alone is saved, and gathered by itself
            "stage3_gather_16bit_weights_on_model_save": False,
        }
    return {
        "train_micro_batch_size_per_gpu": batch.micro_batch,
        "gradient_accumulation_steps": batch.accumulation,
        "train_batch_size": batch.global_batch,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": precision == "bf16"},
        "fp16": {"enabled": precision == "fp16"},
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": NEVER,
        "wall_clock_breakdown": False,
    }
