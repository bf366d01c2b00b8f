"""One run at a time in an output directory, whoever starts it. The lock ends with the process that holds it.

It is the kernel's, so that no crash leaves it behind and no reused process number keeps it. Where the file system has none, a
file is in its place that names host, process and the time that process was started; on its own host it is seen through when
that process is gone.
"""

import errno
import fcntl
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from lft.core.errors import PreflightError
from lft.core.run_dir import RunDir

WAIT_SECONDS = 1.0
"""Those who only look whether the run is alive hold the lock for microseconds."""
NO_FLOCK = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What network file systems say that are mounted without flock."""


@contextmanager
def alone(run_dir: RunDir) -> Iterator[None]:
    """Hold the run's lock. Raises PreflightError where another run has it, or the folder cannot be written."""
    output_dir = run_dir.output_dir
    try:
        run_dir.run.mkdir(parents=True, exist_ok=True)
        lock = _acquired(run_dir)
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


def is_held(run_dir: RunDir) -> bool:
    """Whether a launcher holds the run's lock.

    Asked with a shared lock, given back at once: it needs only the right to read, and two who ask do not disturb each other.
    """
    try:
        handle = os.open(run_dir.lock, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return _is_held_by_file(run_dir)
    else:
        return False
    finally:
        os.close(handle)


def _acquired(run_dir: RunDir) -> BaseFileLock:
    lock: BaseFileLock = FileLock(run_dir.lock, timeout=WAIT_SECONDS, fallback_to_soft=False)
    try:
        lock.acquire()
    except OSError as error:
        if isinstance(error, Timeout) or error.errno not in NO_FLOCK:
            raise
        lock = SoftFileLock(_file(run_dir), timeout=WAIT_SECONDS)
        lock.acquire()
    return lock


def _is_held_by_file(run_dir: RunDir) -> bool:
    if not _file(run_dir).exists():
        return False
    try:
        with warnings.catch_warnings(action="ignore"), SoftFileLock(_file(run_dir), timeout=0):
            return False
    except Timeout:
        return True


def _file(run_dir: RunDir) -> Path:
    return run_dir.lock.with_suffix(".held")


def _who_runs(run_dir: RunDir) -> str:
    """` (pid 4711 on gpu-a2)`, as far as it is known."""
    held = f"; if that host has crashed, remove {_file(run_dir)}" if _file(run_dir).exists() else ""
    try:
        who = json.loads(run_dir.attempts()[-1].launcher.read_text(encoding="utf-8"))
        return f" (pid {who['pid']} on {who['host']}{held})"
    except (IndexError, OSError, ValueError, KeyError, TypeError):
        return held
