"""What torch says of this machine, for lft doctor: printed as one line of JSON. Run as `python -m lft.train.probe`.

In a process of its own, since importing torch takes seconds, and a broken driver may hang or kill the process.
"""

import contextlib
import importlib.util
import json
import sys
import time
import warnings
from typing import Any


def main() -> None:
    """Print the fields of lft.doctor.facts.TorchFacts."""
    with contextlib.redirect_stdout(sys.stderr):  # libraries greet on standard output
        facts = ask_torch()
    sys.stdout.write(json.dumps(facts) + "\n")


def ask_torch() -> dict[str, Any]:
    """Version, build, GPUs and whether each of them computes."""
    start = time.perf_counter()
    try:
        import torch
    except Exception as error:  # a library that is missing, or of another version, may raise anything
        return {"error": f"{type(error).__name__}: {error}"}
    facts: dict[str, Any] = {
        "version": torch.__version__,
        "import_seconds": time.perf_counter() - start,
        "cuda": torch.version.cuda or "",
        "hip": torch.version.hip or "",
        "flash_attention_error": _flash_attention_error(),
    }
    if not (torch.version.cuda or torch.version.hip):
        return facts
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    facts["error"] = "; ".join(str(each.message).split("\n")[0] for each in said)
    facts["architectures"] = torch.cuda.get_arch_list()
    facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(count)]
    facts["capabilities"] = [torch.cuda.get_device_capability(index) for index in range(count)]
    facts["broken"] = [problem for index in range(count) if (problem := _problem(index))]
    with contextlib.suppress(Exception):  # builds without NCCL have no such function
        from torch.cuda import nccl

        facts["nccl"] = ".".join(map(str, nccl.version()))
    return facts


def _problem(index: int) -> str:
    """Why a GPU does not add two numbers; nothing where it does."""
    import torch

    try:
        total = torch.ones(2, device=f"cuda:{index}").sum().item()
    except Exception as error:  # each kind of trouble has its own class
        return f"GPU {index}: {str(error).splitlines()[0]}"
    return "" if total == 2 else f"GPU {index} adds 1 and 1 to {total:g}"


def _flash_attention_error() -> str:
    """An extension that was built for another torch fails when it is imported, in the middle of a run."""
    if importlib.util.find_spec("flash_attn_2_cuda") is None:
        return ""
    try:
        importlib.import_module("flash_attn_2_cuda")
    except Exception as error:  # as above
        return f"{type(error).__name__}: {error}".split("\n")[0]
    return ""


if __name__ == "__main__":
    main()
