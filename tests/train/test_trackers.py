"""Trackers: told what the report says, by rank 0 alone, refused where they cannot be told, and never worth a run."""

import logging
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tensorboardX.proto.event_pb2 import Event
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lft.core.errors import PreflightError, SettingsError
from lft.core.hardware import Machine
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings
from lft.plan.launch_plan import make_plan
from lft.train import trackers
from lft.train.tracker_services import SERVICES
from lft.train.trackers import Memory, Telling, end_trackers, trackers_of

NONE_INSTALLED = Machine(
    gpus=(), cpu_cores=2, memory_bytes=2**33, cpu_computes_bf16=False, missing_trackers=("wandb", "mlflow")
)


class Broken(TrainerCallback):
    """A tracker that fails each time, and counts how often it was told."""

    def __init__(self, *, starts: bool = True) -> None:
        self.starts, self.told = starts, 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        if not self.starts:
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


def begin(tracker: TrainerCallback) -> None:
    """What the trainer does before the first step."""
    arguments = cast(TrainingArguments, SimpleNamespace(to_json_string=lambda: "{}", output_dir="unused"))
    state = TrainerState(is_world_process_zero=True)
    tracker.on_train_begin(arguments, state, TrainerControl(), model=SimpleNamespace())


def tell(tracker: TrainerCallback, step: int, **facts: Any) -> None:
    """What the trainer does at a step."""
    state = TrainerState(global_step=step, is_world_process_zero=True)
    arguments = cast(TrainingArguments, SimpleNamespace(to_json_string=lambda: "{}"))
    hook = tracker.on_evaluate if "metrics" in facts else tracker.on_log
    hook(arguments, state, TrainerControl(), **facts)


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[RunDir]:
    yield RunDir(tmp_path)
    end_trackers(is_well=True)


def begun(tracker: TrainerCallback, *, goes_on: bool = False, folder: Path = Path("unused")) -> Telling:
    """A tracker that training has begun to tell; TensorBoard by name, since it has no service."""
    telling = Telling("tensorboard", tracker, Memory(RunDir(folder), goes_on=goes_on))
    telling.on_train_begin(cast(TrainingArguments, None), TrainerState(), TrainerControl(), model=None)
    return telling


def test_tensorboard_is_told_losses_learning_rate_and_held_out_loss(run_dir: RunDir) -> None:
    (tracker,) = trackers_of(("tensorboard",), run_dir, first_step=0)
    begin(tracker)
    tell(tracker, 1, logs={"loss": 3.5, "learning_rate": 1e-4})
    tell(tracker, 2, logs={"loss": 3.25, "learning_rate": 5e-5})
    tell(tracker, 2, metrics={"held_out_loss": 3.0})
    tracker.on_train_end(cast(TrainingArguments, None), TrainerState(), TrainerControl())
    end_trackers(is_well=True)
    found = scalars(run_dir.tensorboard)
    assert found["train/loss"] == [(1, 3.5), (2, 3.25)]
    assert found["eval/loss"] == [(2, 3.0)]
    assert dict(found["train/learning_rate"]) == pytest.approx({1: 1e-4, 2: 5e-5})


def test_what_was_told_before_a_failure_has_arrived_when_the_rank_leaves(run_dir: RunDir) -> None:
    (tracker,) = trackers_of(("tensorboard",), run_dir, first_step=0)
    begin(tracker)
    tell(tracker, 1, logs={"loss": 3.5})
    end_trackers(is_well=False)  # no on_train_end: an exception went past it
    assert scalars(run_dir.tensorboard)["train/loss"] == [(1, 3.5)]


def test_a_tracker_that_does_not_start_ends_the_run_before_its_first_step() -> None:
    with pytest.raises(PreflightError, match="tensorboard did not start: no API key"):
        begun(Broken(starts=False))


def test_a_run_that_goes_on_does_so_without_a_tracker_that_does_not_start(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken(starts=False)
    with caplog.at_level(logging.WARNING):
        tell(begun(broken, goes_on=True), 1, logs={"loss": 1.0})
    assert broken.told == 0
    assert caplog.messages == ["tensorboard is told nothing: it did not start: no API key"]


def test_a_tracker_that_fails_later_is_told_nothing_more_and_training_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    broken = Broken()
    with caplog.at_level(logging.WARNING):
        telling = begun(broken)
        for step in (1, 2, 3):
            tell(telling, step, logs={"loss": 1.0})
        end_trackers(is_well=True)
    assert broken.told == 1
    assert caplog.messages == ["tensorboard is told nothing more: OSError: disk full"]


def test_a_tracker_that_does_not_answer_holds_up_no_step_and_the_end_only_so_long(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trackers, "END_SECONDS", 0.2)
    answered, closed, told = threading.Event(), threading.Event(), list[tuple[int, float]]()

    class Silent(TrainerCallback):
        def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
            assert answered.wait(60)
            told.append((state.global_step, kwargs["logs"]["loss"]))

        def on_train_end(self, *_: Any, **__: Any) -> None:
            closed.set()

    telling = begun(Silent())
    logs = {"loss": 4.0}
    for step in (1, 2):
        logs["loss"] -= 1.0
        tell(telling, step, logs=logs)  # returns, though nothing answers
    telling.on_train_end(cast(TrainingArguments, None), TrainerState(), TrainerControl())
    with caplog.at_level(logging.WARNING):
        end_trackers(is_well=True)
    assert caplog.messages == ["tensorboard has not taken everything; what it was not told is lost"]
    answered.set()
    assert closed.wait(60)
    assert told == [(1, 3.0), (2, 2.0)], "as it was when it was told"


def test_only_a_run_that_goes_on_remembers_its_runs_of_the_services(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    Memory(run_dir, goes_on=False).keep("wandb", "abc")
    assert Memory(run_dir, goes_on=True).runs == {"wandb": "abc"}
    assert Memory(run_dir, goes_on=False).runs == {}


def test_the_address_of_a_server_is_shown_without_the_name_and_password_in_it() -> None:
    mlflow = SimpleNamespace(
        active_run=lambda: SimpleNamespace(info=SimpleNamespace(experiment_id="7", run_id="abc")),
        get_tracking_uri=lambda: "https://alice:secret@mlflow.example.org/x",
    )
    assert SERVICES["mlflow"].address(mlflow) == "https://mlflow.example.org/x, experiment 7, run abc"


def test_trackers_that_are_not_installed_are_refused_in_the_plan_with_the_line_that_installs_them() -> None:
    values = {"model": {"name": "a/b"}, "data": {"source": "c/d"}}
    settings = RunSettings.model_validate(values | {"training": {"trackers": ["tensorboard", "wandb", "mlflow"]}})
    with pytest.raises(PreflightError) as caught:
        make_plan(settings, NONE_INSTALLED)
    for words in ("names wandb", "pip install wandb", "names mlflow", "pip install mlflow"):
        assert words in str(caught.value)
    assert "tensorboard," not in str(caught.value).partition("pip")[0]
    with pytest.raises(PreflightError, match="pip install wandb"):  # as of a library user, who has no plan
        trackers_of(("wandb",), RunDir(Path("unused")), first_step=0)


def test_an_unknown_tracker_is_refused_with_those_there_are() -> None:
    values = {"model.name": ("--model", "a/b"), "data.source": ("--dataset", "c/d")}
    with pytest.raises(SettingsError) as caught:
        read_settings(None, values, ["training.trackers=[tensorbord]"])
    for words in ("training.trackers", "tensorbord", "tensorboard", "wandb", "trackio", "mlflow"):
        assert words in str(caught.value)


def test_no_tracker_is_told_anything_by_default() -> None:
    assert RunSettings.model_validate({"model": {"name": "a/b"}, "data": {"source": "c/d"}}).training.trackers == ()
