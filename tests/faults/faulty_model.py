"""A Llama whose forward pass misbehaves as the environment variable FAULT says; a model folder's own code (trust_remote_code).

FAULT is JSON: {"kind": ..., "ranks": [...], "step": the call of forward, counted from 1, at which it happens}.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import torch
from transformers import LlamaForCausalLM

FAULT = json.loads(os.environ.get("FAULT", "{}"))
IS_MINE = int(os.environ.get("RANK", "0")) in FAULT.get("ranks", [])
SECOND_LIFE = os.path.exists(FAULT.get("once", ""))


class FaultyLlama(LlamaForCausalLM):
    """Counts its training batches."""

    calls = 0

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """As every Llama, until the time has come."""
        if self.training and torch.is_grad_enabled():
            FaultyLlama.calls += 1
            time.sleep(FAULT.get("slow_seconds", 0))
            if IS_MINE and not SECOND_LIFE and FaultyLlama.calls == FAULT["step"]:
                if "once" in FAULT:
                    open(FAULT["once"], "w").close()
                FAULTS[FAULT["kind"]]()
        return super().forward(*inputs, **named)


def fail() -> None:
    raise ValueError("the tensors do not match")


def fail_and_clean_up_slowly() -> None:
    try:
        fail()
    finally:
        torch.distributed.destroy_process_group()
        time.sleep(FAULT["clean_up_seconds"])


def ignore_sigterm_and_hang() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(100_000)


def start_a_child_and_hang() -> None:
    subprocess.Popen(["sleep", "100000"])
    time.sleep(100_000)


def eat_memory() -> None:
    eaten = []
    while True:
        eaten.append(bytearray(os.urandom(1)) * 2**26)


FAULTS = {
    "raise": fail,
    "raise, slow finally": fail_and_clean_up_slowly,
    "sys.exit(0)": lambda: sys.exit(0),
    "os._exit(0)": lambda: os._exit(0),
    "segfault": lambda: ctypes.string_at(0),
    "kill -9": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "out of memory": lambda: torch.empty(10**15),
    "eat memory": eat_memory,
    "hang": lambda: time.sleep(100_000),
    "child": start_a_child_and_hang,
    "ignore SIGTERM": ignore_sigterm_and_hang,
}
