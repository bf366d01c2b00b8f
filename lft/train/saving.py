"""When all ranks save, and when they stop: agreed after each step, with one sum over the ranks."""

import time
from collections.abc import Callable

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lft.core.errors import StoppedError
from lft.core.precision import Device
from lft.core.settings import SaveEvery
from lft.core.words import interval_seconds
from lft.train.checkpoint_writer import CheckpointWriter
from lft.train.process_group import agree_on


class SaveAndStop(TrainerCallback):
    """Saves as often as the settings say, and after the last step; ends training, saved, once any rank is asked to stop.

    Whether it is time to save is rank 0's clock's to say: those of the other ranks differ.
    """

    def __init__(
        self, save_every: SaveEvery, writer: CheckpointWriter | None, stop_asked: Callable[[], bool], device: Device
    ) -> None:
        self.save_every, self.writer, self.stop_asked, self.device = save_every, writer, stop_asked, device
        self._saved_at = time.monotonic()
        self._stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """The interval begins with the first step: loading is nothing that could be lost."""
        self._saved_at = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Agree on both; after the last step there is nothing to stop."""
        stop, save = agree_on([self.stop_asked(), self._is_due(state.global_step)], self.device)
        is_last = state.global_step >= state.max_steps
        self._stopped = stop and not is_last
        control.should_training_stop |= self._stopped
        control.should_save |= self._stopped or save or is_last

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Save after each epoch where that is asked for, but for one that has been left early or saved already."""
        control.should_save |= self.save_every == "epoch" and not self._stopped and state.global_step < state.max_steps

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """The next interval begins."""
        self._saved_at = time.monotonic()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Wait for the checkpoint. Keep an unfinished adapter from being saved as the final one: raise StoppedError."""
        if self.writer is not None:
            self.writer.wait()
        if self._stopped:
            raise StoppedError(
                f"stopped after step {state.global_step} of {state.max_steps}; {self._kept(state.global_step)}"
            )

    def _is_due(self, step: int) -> bool:
        if isinstance(self.save_every, int):
            return step % self.save_every == 0
        return self.save_every != "epoch" and time.monotonic() - self._saved_at >= interval_seconds(self.save_every)

    def _kept(self, step: int) -> str:
        """What there is to go on from; rank 0 speaks for all."""
        writer = self.writer
        if writer is None or not writer.problem:
            return f"checkpoint-{step} is saved"
        newest = f"the newest is checkpoint-{writer.newest}" if writer.newest else "there is none of this attempt"
        return f"checkpoint-{step} could not be saved: {writer.problem}; {newest}"
