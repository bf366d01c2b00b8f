"""Which number type the frozen base model is kept in, and computes in: one rule for library and launcher."""

from typing import Literal, get_args

from lft.core.errors import PreflightError
from lft.core.settings import Precision

Device = Literal["cpu", "cuda"]


def choose_precision(
    asked: Precision | None, device: Device, *, checkpoint_is_bf16: bool, device_computes_bf16: bool
) -> tuple[Precision, str]:
    """Precision and the reason for it. `asked` wins unless the device cannot do it.

    Without being asked: float32 on a CPU; on CUDA fp16, or bf16 where the checkpoint is bf16 and the GPU computes it.
    Raises PreflightError for fp16 on a CPU (0.2 to 2 GFLOP/s a core where float32 reaches 92) and for bf16 on a GPU
    without it.
    """
    if asked is not None and asked not in get_args(Precision):
        raise PreflightError(f"precision is {asked}; {', '.join(get_args(Precision))} are known")
    if asked == "fp16" and device == "cpu":
        raise PreflightError(
            "fp16 on a CPU is about a thousand times slower than float32 and is refused",
            next_step="use precision fp32, or bf16 where the CPU multiplies it natively",
        )
    if asked == "bf16" and device == "cuda" and not device_computes_bf16:
        raise PreflightError("this GPU does not compute bf16", next_step="use precision fp16 or fp32")
    if asked is not None:
        return asked, "as asked"
    if device == "cpu":
        return "fp32", "on a CPU every checkpoint is computed in float32"
    if checkpoint_is_bf16 and device_computes_bf16:
        return "bf16", "the checkpoint is bf16 and the GPU computes it"
    return "fp16", "half precision on a GPU" + (" without bf16" if checkpoint_is_bf16 else "")


def uses_autocast(precision: Precision, *, sharded: bool) -> bool:
    """Whether the forward pass runs under autocast; float32 adapters in a bf16 model need none, being cast themselves.

    DeepSpeed and FSDP2 cast the weights they gather; fp16 stays with autocast and GradScaler.
    """
    return precision == "fp16" or (precision == "bf16" and sharded)
