"""The trackers a run names, on rank 0: transformers' callbacks, each in a thread of its own.

A service that is slow, or does not answer, must not hold up a step, for which all ranks would wait; one that fails ends
itself and not the run. A run that goes on from a checkpoint goes on with its run of the service.
"""

import copy
import json
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, TensorBoardCallback

from lft.core.errors import PreflightError
from lft.core.files import write_text
from lft.core.rank import with_defaults
from lft.core.run_dir import RunDir
from lft.core.trackers import PACKAGES, Tracker, missing_trackers
from lft.train.tracker_services import service_of, without_credentials

SECONDS_BETWEEN_FLUSHES = 10
"""Of TensorBoard's files, which are looked at while training goes on; the writer's own default is 120."""
START_SECONDS = 120.0
"""wandb itself gives up after 90."""
END_SECONDS = 60.0
END_AFTER_FAILURE_SECONDS = 10.0
"""The launcher waits for a failed rank to leave, but not for long."""
LOOK_SECONDS = 0.1
"""Between two looks at whether to go on waiting."""
logger = logging.getLogger(__name__)


class Memory:
    """run/trackers.json: which runs of the services this run is, for the attempts that go on with it."""

    def __init__(self, run_dir: RunDir, *, goes_on: bool) -> None:
        self.run_dir, self.goes_on = run_dir, goes_on
        self.runs: dict[str, str] = self._read() if goes_on else {}

    def keep(self, name: Tracker, run: str) -> None:
        """Remember the run that has begun, or goes on."""
        self.runs[name] = run
        write_text(self.run_dir.trackers, json.dumps(self.runs) + "\n")

    def _read(self) -> dict[str, str]:
        try:
            return dict(json.loads(self.run_dir.trackers.read_bytes()))
        except (OSError, ValueError):
            return {}


class Telling(TrainerCallback):
    """Passes losses on to one tracker, also the held-out one, as the eval_loss that all of them know."""

    def __init__(
        self, name: Tracker, tracker: TrainerCallback, memory: Memory, announce: Callable[[str], None] = lambda _: None
    ) -> None:
        self.name, self.tracker, self._memory, self._announce = name, tracker, memory, announce
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._is_over = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open it. Raises PreflightError where it cannot be, before anything is trained; a run that goes on does so without."""
        begun = self._thread.submit(self._begin, args, copy.copy(state), control, kwargs)
        try:
            begun.result(START_SECONDS)
        except Exception as error:
            self._is_over = True
            words = without_credentials(str(error)) or f"no answer within {START_SECONDS:.0f} s"
            if self._memory.goes_on:
                logger.warning("%s is told nothing: it did not start: %s", self.name, words)
                return
            way_out = f"see what {self.name} needs, or leave it out of training.trackers"
            raise PreflightError(f"the tracker {self.name} did not start: {words}", next_step=way_out) from None
        OPEN.append(self)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Pass on loss and learning rate."""
        self._pass_on(self.tracker.on_log, args, copy.copy(state), control, logs=dict(kwargs["logs"]))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Pass on the held-out loss."""
        logs = {"eval_loss": kwargs["metrics"]["held_out_loss"]}
        self._pass_on(self.tracker.on_log, args, copy.copy(state), control, logs=logs)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close it, without waiting: `end_trackers` does."""
        self._pass_on(self.tracker.on_train_end, args, copy.copy(state), control, **kwargs)
        self._pass_on(self._end, is_well=True)

    def leave(self, *, is_well: bool) -> Future[None]:
        """Close it wherever training is; done when everything has arrived."""
        ended = self._pass_on(self._end, is_well=is_well)
        self._thread.shutdown(wait=False)
        return ended

    def _begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, kwargs: dict[str, Any]
    ) -> None:
        known, service = self._memory.runs.get(self.name), service_of(self.name)
        if service is None:
            self.tracker.on_train_begin(args, state, control, **kwargs)
            return
        kind, module = service
        folder, args = self._memory.run_dir.run, copy.copy(args)
        folder.mkdir(parents=True, exist_ok=True)  # wandb else takes /tmp
        args.run_name = kind.run_name(str(args.run_name), known)
        with with_defaults(kind.variables(folder, known)):
            self.tracker.on_train_begin(args, state, control, **kwargs)
        self._memory.keep(self.name, kind.run(module))
        self._announce(f"tracker    {self.name}: {kind.address(module)}")

    def _end(self, *, is_well: bool) -> None:
        service = service_of(self.name)
        if service is not None:
            kind, module = service
            kind.end(module, is_well)
        elif isinstance(self.tracker, TensorBoardCallback) and self.tracker.tb_writer is not None:
            self.tracker.tb_writer.close()

    def _pass_on(self, tell: Callable[..., None], *arguments: Any, **named: Any) -> Future[None]:
        """Once training goes on, no tracker is worth it."""

        def pass_on() -> None:
            if self._is_over:
                return
            try:
                tell(*arguments, **named)
            except Exception as error:
                self._is_over = True
                words = without_credentials(f"{type(error).__name__}: {error}")
                logger.warning("%s is told nothing more: %s", self.name, words)

        return self._thread.submit(pass_on)


OPEN: list[Telling] = []
"""What this process has begun and not closed."""


def trackers_of(
    names: Sequence[Tracker], run_dir: RunDir, first_step: int, announce: Callable[[str], None] = lambda _: None
) -> list[TrainerCallback]:
    """A callback for each name; only rank 0 may have them. `announce` is told where to look.

    TensorBoard's events of steps behind `first_step`, from an attempt before, are marked as superseded. A training before in
    this process is closed. Raises PreflightError where a package is missing.
    """
    for name in names:
        if name in missing_trackers():
            way_out = f"pip install {PACKAGES[name]}"
            raise PreflightError(f"training.trackers names {name}, which is not installed", next_step=way_out)
    end_trackers(is_well=True)
    memory = Memory(run_dir, goes_on=first_step > 0)
    return [Telling(name, _tracker(name, run_dir, first_step), memory, announce) for name in names]


def end_trackers(*, is_well: bool, go_on: Callable[[], bool] = lambda: True) -> None:
    """Close what is open, and wait until everything has arrived: 60 s at most, 10 after a failure, while `go_on` says so."""
    leaving = {each.leave(is_well=is_well): each.name for each in OPEN}
    OPEN.clear()
    deadline = time.monotonic() + (END_SECONDS if is_well else END_AFTER_FAILURE_SECONDS)
    late = set(leaving)
    while late and time.monotonic() < deadline and go_on():
        late = wait(late, timeout=LOOK_SECONDS).not_done
    for ended in late:
        logger.warning("%s has not taken everything; what it was not told is lost", leaving[ended])


def _tracker(name: Tracker, run_dir: RunDir, first_step: int) -> TrainerCallback:
    if name != "tensorboard":
        made: TrainerCallback = INTEGRATION_TO_CALLBACK[name]()
        return made
    from tensorboardX import SummaryWriter

    # by itself the callback takes the folder from the environment, and torch's writer, which needs all of TensorBoard
    return TensorBoardCallback(
        SummaryWriter(logdir=str(run_dir.tensorboard), purge_step=first_step + 1, flush_secs=SECONDS_BETWEEN_FLUSHES)
    )
