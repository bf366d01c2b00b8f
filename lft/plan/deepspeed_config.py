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
LIVE_ELEMENTS = 100_000_000
"""Gathered weights kept for a next use; with DeepSpeed's 1e9 a model below that is never really shared out."""
NEVER = 2**31 - 1  # in steps


def deepspeed_config(
    strategy: ZeroStrategy,
    batch: Batch,
    precision: Precision | None,
    max_grad_norm: float,
) -> dict[str, Any]:
    """The content of deepspeed.json for the Trainer's own optimizer and schedule.

    `precision` None is decided by the worker: neither bf16 nor fp16 is enabled here, and the worker enables the one it
    takes. `max_grad_norm` 0 clips nothing.
    """
    zero: dict[str, Any] = {
        "stage": 3 if strategy == "zero3" else 2,
        # a stage-2 step reduces an adapter's gradients only, too little to be worth a second bucket
        "overlap_comm": strategy == "zero3",
        "contiguous_gradients": True,
        "reduce_scatter": True,
        "reduce_bucket_size": REDUCE_BUCKET_ELEMENTS,
        "allgather_bucket_size": ALLGATHER_BUCKET_ELEMENTS,
    }
    if strategy == "zero3":
        zero |= {
            "stage3_prefetch_bucket_size": PREFETCH_BUCKET_ELEMENTS,
            "stage3_param_persistence_threshold": PERSISTENT_ELEMENTS,
            "stage3_max_live_parameters": LIVE_ELEMENTS,
            "stage3_max_reuse_distance": LIVE_ELEMENTS,
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
