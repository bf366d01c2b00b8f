"""One run at a time in an output directory, whoever starts it. The lock ends with the process that holds it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from lft.core.errors import PreflightError
from lft.core.run_dir import RunDir

WAIT_SECONDS = 1.0
"""Those who only look whether the run is alive hold the lock for microseconds."""


@contextmanager
def alone(run_dir: RunDir) -> Iterator[None]:
    """Hold the run's lock. Raises PreflightError where another run has it, or the folder cannot be written."""
    output_dir = run_dir.output_dir
    lock = FileLock(run_dir.lock, timeout=WAIT_SECONDS)
    try:
        run_dir.run.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise PreflightError(
            f"another run is using {output_dir}{_who_runs(run_dir)}",
            next_step=f"lft status {output_dir}, or choose another --output-dir",
        ) from None
    except OSError as error:
        raise PreflightError(
            f"{output_dir} cannot be written: {error.strerror or error}", next_step="choose another --output-dir"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _who_runs(run_dir: RunDir) -> str:
    """` (pid 4711 on gpu-a2)`, as far as it is known."""
    try:
        who = json.loads(run_dir.attempts()[-1].launcher.read_text(encoding="utf-8"))
        return f" (pid {who['pid']} on {who['host']})"
    except (IndexError, OSError, ValueError, KeyError, TypeError):
        return ""
