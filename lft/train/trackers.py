"""The trackers a run names, on rank 0: transformers' callbacks, and a failure of one that ends it and not the run."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, TensorBoardCallback

from lft.core.errors import PreflightError
from lft.core.trackers import PACKAGES, Tracker, missing_trackers

SECONDS_BETWEEN_FLUSHES = 10
"""Of TensorBoard's files, which are looked at while training goes on; the writer's own default is 120."""
logger = logging.getLogger(__name__)


class Telling(TrainerCallback):
    """Passes losses on to one tracker, also the held-out one, as the eval_loss that all of them know."""

    def __init__(self, name: Tracker, tracker: TrainerCallback) -> None:
        self.name, self.tracker = name, tracker
        self._has_failed = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open it. Raises PreflightError where it cannot be: then nothing is trained yet."""
        try:
            self.tracker.on_train_begin(args, state, control, **kwargs)
        except Exception as error:
            way_out = f"see what {self.name} needs, or leave it out of training.trackers"
            raise PreflightError(f"the tracker {self.name} did not start: {error}", next_step=way_out) from error

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Pass on loss and learning rate."""
        self._pass_on(self.tracker.on_log, args, state, control, kwargs)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Pass on the held-out loss."""
        logs = {"eval_loss": kwargs.pop("metrics")["held_out_loss"]}
        self._pass_on(self.tracker.on_log, args, state, control, kwargs | {"logs": logs})

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close it."""
        self._pass_on(self.tracker.on_train_end, args, state, control, kwargs)

    def _pass_on(
        self,
        tell: Callable[..., None],
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        kwargs: dict[str, Any],
    ) -> None:
        """Once training goes on, no tracker is worth it."""
        if self._has_failed:
            return
        try:
            tell(args, state, control, **kwargs)
        except Exception as error:
            self._has_failed = True
            logger.warning("%s is told nothing more: %s: %s", self.name, type(error).__name__, error)


def trackers_of(names: Sequence[Tracker], log_dir: Path, first_step: int) -> list[TrainerCallback]:
    """A callback for each name; only rank 0 may have them. TensorBoard's files go to `log_dir`.

    Events of steps behind `first_step`, from an attempt before, are marked as superseded. Raises PreflightError where a
    package is missing.
    """
    for name in names:
        if name in missing_trackers():
            way_out = f"pip install {PACKAGES[name]}"
            raise PreflightError(f"training.trackers names {name}, which is not installed", next_step=way_out)
    return [Telling(name, _tracker(name, log_dir, first_step)) for name in names]


def _tracker(name: Tracker, log_dir: Path, first_step: int) -> TrainerCallback:
    if name != "tensorboard":
        made: TrainerCallback = INTEGRATION_TO_CALLBACK[name]()
        return made
    from tensorboardX import SummaryWriter

    # by itself the callback takes the folder from the environment, and torch's writer, which needs all of TensorBoard
    return TensorBoardCallback(
        SummaryWriter(logdir=str(log_dir), purge_step=first_step + 1, flush_secs=SECONDS_BETWEEN_FLUSHES)
    )
