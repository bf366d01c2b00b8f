"""Asking another process, for no longer than it deserves."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REAP_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Answer:
    """What a process printed; `error` where it failed, is missing or did not answer."""

    output: str = ""
    error: str = ""


def ask(argv: Sequence[str], seconds: float) -> Answer:
    """Run a program. One that a dead network share holds up cannot even be killed: it is then left alone."""
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return Answer(error=str(error.strerror or error))
    try:
        output, complaint = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=REAP_SECONDS)
        return Answer(error=f"no answer within {seconds:g} s")
    if process.returncode != 0:
        lines = (complaint.strip() or output.strip()).splitlines()
        return Answer(output, error=lines[-1] if lines else f"ended with {process.returncode}")
    return Answer(output)


def ask_module(module: str, *arguments: str, seconds: float) -> dict[str, Any]:
    """The JSON that `python -m module` prints on its last line; where it does not, {"error": why}."""
    answer = ask([sys.executable, "-m", module, *arguments], seconds)
    if answer.error:
        return {"error": answer.error}
    try:
        facts = json.loads(answer.output.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {"error": "an answer that cannot be read"}
    return facts if isinstance(facts, dict) else {"error": "an answer that cannot be read"}
