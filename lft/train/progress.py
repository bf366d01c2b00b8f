"""What the training loop tells: events for the launcher, tokens and seconds for the report."""

import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lft.core.beat import Heart
from lft.core.events import EventWriter
from lft.core.throughput import Speed, speed
from lft.train.batches import Tally
from lft.train.flops import Arithmetic, training_arithmetic
from lft.train.memory import peak_memory_bytes

SECONDS_BETWEEN_STEP_EVENTS = 0.5


class Beating(TrainerCallback):
    """Lets the launcher see that this rank goes on: at each micro-batch and each step. For every rank."""

    def __init__(self, heart: Heart) -> None:
        self.heart = heart

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The first micro-batch of a step begins."""
        self.heart.beat("training", state.global_step, state.max_steps)

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A micro-batch is done, and more of the step follow."""
        self.heart.beat("training", state.global_step, state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step is done."""
        self.heart.beat("training", state.global_step, state.max_steps)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A batch of held-out rows is measured."""
        self.heart.beat("evaluating", state.global_step, state.max_steps)


class TellProgress(TrainerCallback):
    """Writes total, step, log and evaluated events, and keeps what the report needs. For rank 0, for all `ranks`."""

    def __init__(self, events: EventWriter, ranks: int, peak_flops: float | None = None) -> None:
        self.events, self.ranks, self.peak_flops = events, ranks, peak_flops
        self.losses: list[dict[str, float]] = []
        self.held_out_losses: list[dict[str, float]] = []
        self.steps = self.first_step = 0
        self.seconds = 0.0
        self._tally = Tally()
        self._arithmetic: Arithmetic | None = None
        self._started = self._told = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say how many steps there will be; a resumed run has done some of them, whose losses are in its checkpoint."""
        self._tally = kwargs["train_dataloader"].collate_fn.tally
        self._arithmetic = training_arithmetic(kwargs["model"])
        self._started = time.monotonic()
        self.steps = self.first_step = state.global_step
        keys = ("step", "loss", "learning_rate")
        self.losses = [{key: entry[key] for key in keys} for entry in state.log_history if "loss" in entry]
        self.events.write("total", steps=state.max_steps, peak_flops=self.peak_flops)
        self._tell_step(state)

    def done(self) -> dict[str, Any]:
        """What all ranks have computed in this attempt: this rank's batches, times their number."""
        tally, ranks = self._tally, self.ranks
        return {
            "tokens": tally.tokens * ranks,
            "trained_tokens": tally.trained_tokens * ranks,
            "places": tally.places * ranks,
            "flops": self._arithmetic.flops(tally) * ranks if self._arithmetic else None,
        }

    def speed(self) -> Speed:
        """That of this attempt."""
        nothing = {"tokens": 0, "trained_tokens": 0, "places": 0, "flops": 0.0}
        return speed(self.done(), nothing, self.seconds, self.peak_flops)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Say which step is done, not more often than anyone looks."""
        self.steps, now = state.global_step, time.monotonic()
        self.seconds = now - self._started
        if now - self._told > SECONDS_BETWEEN_STEP_EVENTS or state.global_step == state.max_steps:
            self._told = now
            self._tell_step(state)

    def _tell_step(self, state: TrainerState) -> None:
        facts = {"seconds": self.seconds, "memory_bytes": peak_memory_bytes(), **self.done()}
        self.events.write("step", step=state.global_step, total=state.max_steps, **facts)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Pass on the mean loss since the last log."""
        logs = kwargs.get("logs") or {}
        if "loss" in logs:
            entry = {"step": state.global_step, "loss": logs["loss"], "learning_rate": logs["learning_rate"]}
            self.losses.append(entry)
            self.events.write("log", total=state.max_steps, **entry)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Pass on the held-out loss."""
        entry = {"step": state.global_step, "held_out_loss": kwargs["metrics"]["held_out_loss"]}
        self.held_out_losses.append(entry)
        self.events.write("evaluated", **entry)


class SayLoss(TrainerCallback):
    """Says the loss each time it is logged; for a caller of the library, who has no display."""

    def __init__(self, announce: Callable[[str], None]) -> None:
        self.announce = announce

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """One line: step, loss, learning rate."""
        logs = kwargs.get("logs") or {}
        if "loss" in logs and state.is_world_process_zero:
            rate = f"learning rate {logs['learning_rate']:.2g}"
            self.announce(f"train      step {state.global_step}/{state.max_steps}  loss {logs['loss']:.4f}  {rate}")
