"""The signals that ask a run to stop, and what becomes of one that comes before anyone listens. Imports next to nothing.

A launcher that is still importing and planning has nothing to end in order: it says so and leaves. Its ranks are born with
the signals blocked, so that one that comes while a rank imports its libraries waits until the rank listens.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# SLURM and preempting schedulers send the last two; untreated they would kill the launcher (pytorch#154849)
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
SAVED, STOPPED = 75, 130
"""As in core/errors.py, which imports more."""


class EarlyStop:
    """What a stop signal does to a launcher that has not started anything."""

    def __init__(self) -> None:
        self._is_over = False

    def listen(self) -> None:
        """From now on a stop signal ends this process in words, past anything that could take it for a failure."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._leave)

    def retire(self) -> None:
        """From now on it does nothing: the run is over, and how it ended is told."""
        self._is_over = True

    def _leave(self, number: int, _frame: FrameType | None) -> None:
        if self._is_over:
            return
        code = STOPPED if number == signal.SIGINT else SAVED
        words = f"  stopped    by {signal.Signals(number).name} before anything was started\n"
        with suppress(OSError):
            os.write(2, f"{words}  next       the same command again\nexit {code}\n".encode())
        os._exit(code)


early_stop = EarlyStop()
"""That of this process."""


@contextmanager
def blocked() -> Iterator[None]:
    """Processes started meanwhile have these signals blocked; for this one they wait until the end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """Have those delivered that waited because they were blocked when this process was started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
