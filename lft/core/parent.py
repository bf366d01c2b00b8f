"""Not outliving the process that started this one."""

import ctypes
import os
import signal
import sys

from lft.core.errors import FORCED

PR_SET_PDEATHSIG = 1


def die_with(parent: int | None) -> None:
    """On Linux: be killed when the parent dies, however it dies; leave at once if `parent` is not the parent any more.

    The signal comes when the thread that started this process ends, and does not reach what this process starts (prctl(2)).
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent not in (None, os.getppid()):  # it died before the line above
        os._exit(FORCED + signal.SIGKILL)
