"""When all ranks measure the held-out loss, when they save, and when they stop: agreed after each step, with one sum."""

import time
from collections.abc import Callable

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lft.core.errors import StoppedError
from lft.core.precision import Device
from lft.core.section import Every
from lft.core.words import interval_seconds
from lft.train.evaluation import HeldOutLoss
from lft.train.process_group import agree_on
from lft.train.trainer import LoraTrainer


class Due:
    """Whether it is time again: after so many steps, an epoch, or by the clock; never for None."""

    def __init__(self, every: Every | None) -> None:
        self.every = every
        self._last = time.monotonic()

    def begin(self) -> None:
        """The next interval of time begins."""
        self._last = time.monotonic()

    def after(self, state: TrainerState) -> bool:
        """Whether it is time after the step that is done."""
        if self.every is None:
            return False
        if isinstance(self.every, int):
            return state.global_step % self.every == 0
        if self.every == "epoch":
            return float(state.epoch or 0.0).is_integer()
        return time.monotonic() - self._last >= interval_seconds(self.every)


class SaveAndStop(TrainerCallback):
    """Saves as often as the settings say, and after the last step; ends training, saved, once any rank is asked to stop.

    Any rank's clock may say that it is time, and then it is for all of them.
    """

    def __init__(
        self,
        trainer: LoraTrainer,
        save: Due,
        evaluate: Due,
        held_out: HeldOutLoss | None,
        stop_asked: Callable[[], bool],
        device: Device,
        *,
        keep_best: bool,
    ) -> None:
        self.trainer, self.save, self.evaluate, self.held_out = trainer, save, evaluate, held_out
        self.stop_asked, self.device, self.keep_best = stop_asked, device, keep_best
        self._stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """The intervals begin with the first step: loading is nothing that could be lost."""
        self.save.begin()
        self.evaluate.begin()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Agree on all three; after the last step there is nothing to stop."""
        due = [self.stop_asked(), self.save.after(state), self.evaluate.after(state)]
        stop, save, evaluate = agree_on(due, self.device)
        is_last = state.global_step >= state.max_steps
        self.trainer.held_out_loss = None
        if self.held_out is not None and evaluate and not stop:
            self.trainer.held_out_loss = self.held_out.measure()
            stop = self.trainer.held_out_loss is None
            self.evaluate.begin()
            save |= self.keep_best
        if self.trainer.held_out_loss is not None:
            found = {"held_out_loss": self.trainer.held_out_loss}
            self.trainer.callback_handler.on_evaluate(args, state, control, found)
        self._stopped = stop and not is_last
        control.should_training_stop |= self._stopped
        control.should_save |= self._stopped or save or is_last

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """The next interval begins."""
        self.save.begin()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Wait for the checkpoint. Keep an unfinished adapter from being saved as the final one: raise StoppedError."""
        if self.trainer.writer is not None:
            self.trainer.writer.wait()
        if self._stopped:
            raise StoppedError(
                f"stopped after step {state.global_step} of {state.max_steps}; {self._kept(state.global_step)}"
            )

    def _kept(self, step: int) -> str:
        """What there is to go on from; rank 0 speaks for all."""
        writer = self.trainer.writer
        if writer is None or not writer.problem:
            return f"checkpoint-{step} is saved"
        newest = f"the newest is checkpoint-{writer.newest}" if writer.newest else "there is none of this attempt"
        return f"checkpoint-{step} could not be saved: {writer.problem}; {newest}"
