"""One rank: `python -m lft.train.worker ORDER`, started by lft, torchrun, accelerate launch or deepspeed.

Signals are caught before anything heavy is imported; a failure is written down before any clean-up.
"""

import faulthandler
import logging
import os
import re
import resource
import signal
import sys
import time
import traceback
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from lft.core.beat import Heart
from lft.core.errors import DONE, SETTINGS, RendezvousError, StoppedError
from lft.core.events import EventWriter
from lft.core.order import STOPPED_EARLY, Job, WorkerOrder, WorkerReport
from lft.core.parent import die_with
from lft.core.rank import Rank, forget_accelerate, launcher_pid, use_defaults
from lft.core.run_dir import Attempt, RunDir
from lft.core.run_lock import alone
from lft.core.stop_signals import STOP_SIGNALS, let_through

if TYPE_CHECKING:
    from lft.train.jobs import Desk

LIBRARY_DEFAULTS = {
    # tensors of 2 MiB and more in huge pages, aligned to them: freed ones fit later ones better (docs/benchmarks.md)
    "THP_MEM_ALLOC_ENABLE": "1",
    "TOKENIZERS_PARALLELISM": "true",
    # bars would fill the rank's log; events tell how far it is
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
WARNING = re.compile(r"(?:[^\n]+?:\d+: (?P<kind>\w*Warning): )?(?P<text>.+)")
FOR_DEVELOPERS = ("FutureWarning", "DeprecationWarning", "PendingDeprecationWarning")


class StopRequest:
    """Set by a signal, looked at between steps and between stages."""

    def __init__(self) -> None:
        self.request: Path | None = None
        """Where `lft stop` asks, if no launcher of lft looks there."""
        self._heard = False
        self._since = time.time()

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        if self.request is not None and not self._heard:
            with suppress(FileNotFoundError):
                self._heard = self.request.stat().st_mtime > self._since
        return self._heard

    def listen(self) -> None:
        """From now on a stop signal only sets the flag; so does one that came while this process was being started."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._note)
        let_through()

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._heard = True


def main(arguments: list[str]) -> int:
    """Run the order; returns the exit code. torchrun and deepspeed may put their own arguments before the order."""
    stop = StopRequest()
    stop.listen()
    faulthandler.enable()
    faulthandler.register(signal.SIGQUIT, all_threads=True)
    die_with(launcher_pid())  # nothing may go on holding the devices
    try:
        order = WorkerOrder.load(Path(arguments[-1]))
    except (IndexError, OSError, ValueError) as error:
        sys.stderr.write(f"lft.train.worker: an order file is expected: {error}\n")
        return SETTINGS
    use_defaults(LIBRARY_DEFAULTS)
    forget_accelerate()
    rank = Rank.from_environment()
    attempt = Attempt(order.attempt_dir)
    run_dir = RunDir(order.settings.output_dir)
    events = EventWriter(run_dir.events / f"rank-{rank.rank}.jsonl")
    stage = _Stage(order.job, events, Heart(attempt.beat(rank.rank)), stop)
    _tell_warnings(events)
    try:
        if rank.world_size != order.world_size:
            raise RendezvousError(f"the order is for {order.world_size} ranks, and {rank.world_size} were started")
        with _watched_over(stop, run_dir, rank):
            metrics = _work(order, rank, stage)
    except BaseException as error:
        text = traceback.format_exc()
        last = stage.heart.last
        report = WorkerReport.of_failure(
            rank.rank, last.stage, error, text, step=last.step, memory_bytes=_peak_resident_bytes()
        )
        with suppress(OSError):  # a full disk must not hide what happened: the text below goes to the log
            report.save(attempt.failure(rank.rank))
        sys.stderr.write(text)
        _end_trackers(stage, is_well=False)
        return report.exit_code
    WorkerReport(ok=True, rank=rank.rank, stage=stage.heart.last.stage, metrics=metrics).save(
        attempt.report(order.job, rank.rank)
    )
    events.write("done", job=order.job)
    _end_trackers(stage, is_well=True)
    return DONE


def _watched_over(stop: StopRequest, run_dir: RunDir, rank: Rank) -> AbstractContextManager[None]:
    """Where no launcher of lft does it: rank 0 holds the run's lock, and every rank looks for the request of `lft stop`."""
    if launcher_pid() is not None:
        return nullcontext()
    stop.request = run_dir.stop_request
    return alone(run_dir) if rank.is_main else nullcontext()


class _Stage:
    """What the rank is doing: for its beats, for the console, and the place where a stop takes effect."""

    def __init__(self, job: Job, events: EventWriter, heart: Heart, stop: StopRequest) -> None:
        self.job, self.events, self.heart, self.stop = job, events, heart, stop

    def enter(self, name: str) -> None:
        """Begin a stage. Raises StoppedError if a stop was asked for."""
        self.heart.beat(name)
        self.events.write("stage", name=name)
        if self.stop.asked:
            raise StoppedError(STOPPED_EARLY[self.job])


def _work(order: WorkerOrder, rank: Rank, stage: _Stage) -> dict[str, Any]:
    stage.enter("loading libraries")
    from lft.train import jobs

    desk: Desk = jobs.Desk(
        order=order,
        rank=rank,
        enter=stage.enter,
        events=stage.events,
        heart=stage.heart,
        stop_asked=lambda: stage.stop.asked,
    )
    if order.job == "train":
        return jobs.train(desk)
    from lft.train import benchmark_job

    return benchmark_job.benchmark(desk)


def _end_trackers(stage: _Stage, *, is_well: bool) -> None:
    """Let trackers take what they were told, which leaving past the interpreter's shutdown would lose.

    When everything is written down and no other rank waits for this one.
    """
    if "lft.train.trackers" not in sys.modules:
        return
    from lft.train.trackers import OPEN, end_trackers

    if OPEN:
        stage.events.write("stage", name="closing trackers")

    def go_on() -> bool:
        last = stage.heart.last
        stage.heart.beat(last.stage, last.step, last.total)
        return not (is_well and stage.stop.asked)

    end_trackers(is_well=is_well, go_on=go_on)


def _tell_warnings(events: EventWriter) -> None:
    """Pass warnings of the libraries on to the launcher, which shows those of all ranks once; the log has them too."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # a formatted warning is "file:line: Class: text" and its source line
            found = WARNING.match(record.getMessage().strip())
            if found and found["kind"] not in FOR_DEVELOPERS:
                events.write("warning", line=found["text"])

    logging.captureWarnings(True)
    logging.getLogger().addHandler(logging.StreamHandler(sys.stderr))
    logging.getLogger().addHandler(Teller(logging.WARNING))


def _peak_resident_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # past the interpreter's shutdown: a failed rank must not wait for, or be aborted by, threads of gloo or NCCL
    os._exit(status)
