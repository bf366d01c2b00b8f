"""Running out of memory, recognised whoever says it; and the most memory this process has used."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lft.core.errors import OutOfMemoryError

# torch on CUDA; torch's CPU allocator; C++ under both
WORDS = ("out of memory", "can't allocate memory", "not enough memory", "bad_alloc")
ADVICE = "Reduce batch size or sequence length"


@contextmanager
def translating_out_of_memory() -> Iterator[None]:
    """Raise OutOfMemoryError, which says "out of memory" and what to do, for any error that means it."""
    try:
        yield
    except MemoryError as error:
        raise OutOfMemoryError("out of memory", next_step=ADVICE) from error
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
        if isinstance(error, OutOfMemoryError) or not any(words in str(error) for words in WORDS):
            raise
        raise OutOfMemoryError(f"out of memory: {reason}", next_step=ADVICE) from error


def peak_memory_bytes() -> int:
    """The most memory this process has held so far: allocated on its GPUs, or resident on a CPU."""
    if torch.cuda.is_available():
        return max(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count()))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
