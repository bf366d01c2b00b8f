"""Trackers: told what the report says, by rank 0 alone, refused where they cannot be told, and never worth a run."""

import logging
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tensorboardX.proto.event_pb2 import Event
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lft.core.errors import PreflightError, SettingsError
from lft.core.hardware import Machine
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings
from lft.plan.launch_plan import make_plan
from lft.train.trackers import Telling, trackers_of

NONE_INSTALLED = Machine(
    gpus=(), cpu_cores=2, memory_bytes=2**33, cpu_computes_bf16=False, missing_trackers=("wandb", "mlflow")
)


class Broken(TrainerCallback):
    """A tracker that fails each time, and counts how often it was told."""

    told = 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        raise ConnectionError("no API key")

    def on_log(self, *_: Any, **__: Any) -> None:
        self.told += 1
        raise OSError("disk full")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> steps and values of all event files, which are TFRecords: length, checksum, message, checksum."""
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += length + 16
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def tell(tracker: TrainerCallback, step: int, **facts: Any) -> None:
    """What the trainer does at a step."""
    state = TrainerState(global_step=step, is_world_process_zero=True)
    arguments = cast(TrainingArguments, SimpleNamespace(to_json_string=lambda: "{}"))
    hook = tracker.on_evaluate if "metrics" in facts else tracker.on_log
    hook(arguments, state, TrainerControl(), **facts)


def test_tensorboard_is_told_losses_learning_rate_and_held_out_loss(tmp_path: Path) -> None:
    (tracker,) = trackers_of(("tensorboard",), tmp_path, first_step=0)
    tell(tracker, 1, logs={"loss": 3.5, "learning_rate": 1e-4})
    tell(tracker, 2, logs={"loss": 3.25, "learning_rate": 5e-5})
    tell(tracker, 2, metrics={"held_out_loss": 3.0})
    tracker.on_train_end(cast(TrainingArguments, None), TrainerState(), TrainerControl())
    found = scalars(tmp_path)
    assert found["train/loss"] == [(1, 3.5), (2, 3.25)]
    assert found["eval/loss"] == [(2, 3.0)]
    assert dict(found["train/learning_rate"]) == pytest.approx({1: 1e-4, 2: 5e-5})


def test_a_tracker_that_does_not_start_ends_the_run_before_its_first_step() -> None:
    with pytest.raises(PreflightError, match="wandb did not start: no API key"):
        Telling("wandb", Broken()).on_train_begin(
            cast(TrainingArguments, None), TrainerState(), TrainerControl(), model=None
        )


def test_a_tracker_that_fails_later_is_told_nothing_more_and_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    tracker = Telling("mlflow", broken)
    with caplog.at_level(logging.WARNING):
        for step in (1, 2, 3):
            tell(tracker, step, logs={"loss": 1.0})
    assert broken.told == 1
    assert caplog.messages == ["mlflow is told nothing more: OSError: disk full"]


def test_trackers_that_are_not_installed_are_refused_in_the_plan_with_the_line_that_installs_them() -> None:
    values = {"model": {"name": "a/b"}, "data": {"source": "c/d"}}
    settings = RunSettings.model_validate(values | {"training": {"trackers": ["tensorboard", "wandb", "mlflow"]}})
    with pytest.raises(PreflightError) as caught:
        make_plan(settings, NONE_INSTALLED)
    for words in ("names wandb", "pip install wandb", "names mlflow", "pip install mlflow"):
        assert words in str(caught.value)
    assert "tensorboard," not in str(caught.value).partition("pip")[0]
    with pytest.raises(PreflightError, match="pip install wandb"):  # as of a library user, who has no plan
        trackers_of(("wandb",), Path("unused"), first_step=0)


def test_an_unknown_tracker_is_refused_with_those_there_are() -> None:
    values = {"model.name": ("--model", "a/b"), "data.source": ("--dataset", "c/d")}
    with pytest.raises(SettingsError) as caught:
        read_settings(None, values, ["training.trackers=[tensorbord]"])
    for words in ("training.trackers", "tensorbord", "tensorboard", "wandb", "trackio", "mlflow"):
        assert words in str(caught.value)


def test_no_tracker_is_told_anything_by_default() -> None:
    assert RunSettings.model_validate({"model": {"name": "a/b"}, "data": {"source": "c/d"}}).training.trackers == ()
