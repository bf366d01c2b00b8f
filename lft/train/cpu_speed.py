"""Whether this CPU is really faster in bf16, measured: some that have the instructions are slower with them.

Seen on two CPUs that both report avx512_bf16: 350 GFLOP/s a thread against 92 in float32 on one, 83 against 155 on the other.
"""

import time

import torch

SHAPE = (368, 576, 1536)  # rows of a small micro-batch through a layer of a small model
PEAK_SHAPE = (1024, 1024, 1024)  # large enough for all threads of a rank
REPEATS = 5
WORTHWHILE = 1.2
"""bf16 rounds; it has to be this much faster to be chosen."""


def giga_flops(dtype: torch.dtype, shape: tuple[int, int, int] = SHAPE) -> float:
    """Best speed of a matrix product of `shape` (rows, in, out) over REPEATS runs, in GFLOP/s; of SHAPE in some 20 ms."""
    rows, width, out = shape
    left, right = torch.ones(rows, width, dtype=dtype), torch.ones(out, width, dtype=dtype)
    torch.nn.functional.linear(left, right)  # the first run prepares the kernel
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        torch.nn.functional.linear(left, right)
        seconds.append(time.perf_counter() - started)
    return 2e-9 * rows * width * out / min(seconds)
