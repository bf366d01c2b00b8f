"""More processes for one rank's share of the work: forked, so that they import nothing anew and share what is loaded."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lft.core.parent import die_with


@contextmanager
def forked(count: int, work: Callable[[int], None]) -> Iterator[None]:
    """`work(0)` to `work(count - 1)` run in processes of their own while the block runs; at its end they are killed.

    They must be dispensable: one that fails does so silently, and leaves its part to this process, which will then meet
    the same error. None outlives this process.
    """
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_run, args=(work, number, os.getpid()), daemon=True) for number in range(count)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()


def _run(work: Callable[[int], None], number: int, parent: int) -> None:
    for name in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(name, signal.SIG_DFL)
    die_with(parent)
    try:
        work(number)
    except BaseException:  # the parent meets the same error, and says it once
        os._exit(1)
    os._exit(0)
