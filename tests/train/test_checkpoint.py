"""Checkpoints: exact on any number of ranks, kept as asked for, never half written, and no danger to the run."""

import ctypes
import logging
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from lft.core.checkpoints import MANIFEST, Manifest, complete, is_complete, problem, to_remove
from lft.core.errors import AdapterError
from lft.core.order import WorkerOrder
from lft.core.settings import Strategy
from lft.train.adapter import AdapterFiles
from lft.train.checkpoint import Snapshot, TrainingState, read_optimizer, read_ranks, read_state, write_snapshot
from lft.train.checkpoint_writer import CheckpointWriter
from lft.train.random_state import random_state, restore_random
from tests.conftest import TinyModels
from tests.train.ranks import adapter, difference, losses, make_order, metrics, trained

WIDE = 2**20
"""Values of the adapter of some tests: 4 MiB."""


def snapshot(step: int, *, loss: float | None = None, values: int = 64, fill: float = 0.5) -> Snapshot:
    """A run after some steps, on two ranks."""
    weights = {"base_model.model.q.lora_A.weight": torch.full((values,), fill)}
    moments = {"exp_avg": torch.randn(values), "step": torch.tensor(float(step))}
    return Snapshot(
        AdapterFiles(LoraConfig(r=4), weights, {name: tuple(tensor.shape) for name, tensor in weights.items()}),
        {"base_model.model.q.lora_A.default.weight": moments},
        [random_state() | {"loss": torch.tensor(float(rank))} for rank in range(2)],
        TrainingState(step=step, schedule_steps=step, last_logged=step, log_history=[]),
        {
            "step": step,
            "items_seen": step * 8,
            "items": 100,
            "global_batch": 8,
            "world_size": 2,
            "strategy": "ddp",
            "precision": "fp32",
            "held_out_loss": loss,
        },
    )


def writer(folder: Path, *, keep_last: int = 3, keep_best: bool = False) -> CheckpointWriter:
    """A writer into `folder` that tells nobody."""
    folder.mkdir(exist_ok=True)
    return CheckpointWriter(folder, lambda: to_remove(folder, keep_last, keep_best=keep_best), lambda *_: None)


def names(folder: Path) -> list[str]:
    """All that lies in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    taken = snapshot(7)
    write_snapshot(taken, tmp_path)
    assert problem(tmp_path) == ""
    assert read_state(tmp_path) == taken.state
    for name, state in read_optimizer(tmp_path).items():
        assert all(torch.equal(tensor, taken.optimizer[name][key]) for key, tensor in state.items())
    for read, had in zip(read_ranks(tmp_path), taken.ranks, strict=True):
        assert all(torch.equal(tensor, had[key]) for key, tensor in read.items())


def test_every_random_generator_goes_on_from_where_it_was() -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), float(torch.rand(()))]

    draw()  # an odd number of normal values: one of each pair waits in its generator
    state = random_state()
    first = draw()
    draw()
    restore_random(state)
    assert draw() == first


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"is damaged: .* of .* bytes"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-9] + b"\x01" + path.read_bytes()[-8:]),
            "not what was written",
        ),
        (Path.unlink, "has lost"),
    ],
    ids=["cut off", "a byte changed", "missing"],
)
@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "optimizer.safetensors", "ranks.safetensors", "state.json"]
)
def test_damage_to_any_file_is_found(tmp_path: Path, name: str, damage: Callable[[Path], object], words: str) -> None:
    write_snapshot(snapshot(7), tmp_path)
    damage(tmp_path / name)
    found = problem(tmp_path)
    assert re.search(words, found), found
    assert name in found


def test_a_folder_without_a_whole_manifest_is_no_checkpoint(tmp_path: Path) -> None:
    write_snapshot(snapshot(7), tmp_path)
    manifest = tmp_path / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:40])
    assert not is_complete(tmp_path)
    assert "damaged manifest.json" in problem(tmp_path)
    manifest.unlink()
    assert problem(tmp_path) == "is not complete: its manifest is missing"


def test_the_newest_are_kept_and_the_best_if_asked_for(tmp_path: Path) -> None:
    plain, best = writer(tmp_path / "plain", keep_last=2), writer(tmp_path / "best", keep_last=2, keep_best=True)
    for step, loss in enumerate((2.0, 1.0, 3.0, None, 4.0), start=1):
        plain.write(snapshot(step, loss=loss))
        best.write(snapshot(step, loss=loss))
    plain.wait()
    best.wait()
    assert names(plain.output_dir) == ["checkpoint-4", "checkpoint-5"]
    assert names(best.output_dir) == ["checkpoint-2", "checkpoint-4", "checkpoint-5"]


def test_weights_that_are_not_finite_stop_the_run_and_leave_the_checkpoint_before(tmp_path: Path) -> None:
    writing = writer(tmp_path)
    writing.write(snapshot(1))
    writing.write(snapshot(2, fill=float("nan")))
    with pytest.raises(AdapterError, match="not finite"):
        writing.wait()
    assert names(tmp_path) == ["checkpoint-1"]


def test_what_a_killed_attempt_left_half_written_is_cleared_away(tmp_path: Path) -> None:
    earlier = writer(tmp_path)
    earlier.write(snapshot(1))
    earlier.wait()
    (tmp_path / ".checkpoint-2-abcd").mkdir()
    (tmp_path / ".checkpoint-2-abcd" / "adapter_model.safetensors").write_bytes(b"half")
    writing = writer(tmp_path)
    writing.wait()
    assert [path.name for path in complete(tmp_path)] == ["checkpoint-1"]
    assert not (tmp_path / ".checkpoint-2-abcd").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=20m") != 0:
        pytest.fail("this test mounts a small tmpfs, for which it needs root")
    try:
        yield folder
    finally:
        libc.umount2(str(folder).encode(), 2)


def test_a_full_disk_costs_the_checkpoint_and_not_the_run_and_is_said_once(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writing = writer(small_disk)
    with caplog.at_level(logging.WARNING):
        for step in (1, 2, 3, 4):  # each has 8 MiB
            writing.write(snapshot(step, values=WIDE))
            writing.wait()
    assert [path.name for path in complete(small_disk)] == ["checkpoint-1", "checkpoint-2"]
    assert names(small_disk) == ["checkpoint-1", "checkpoint-2"], "what was half written is gone"
    assert [problem(path) for path in complete(small_disk)] == ["", ""]
    assert [record.getMessage() for record in caplog.records] == [
        "checkpoint-3 could not be saved, training goes on: No space left on device"
    ]
    shutil.rmtree(small_disk / "checkpoint-1")
    writing.write(snapshot(5, values=WIDE))
    writing.wait()
    assert (writing.newest, writing.problem) == (5, "")


@pytest.fixture(scope="module")
def whole(tiny_models: TinyModels, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> WorkerOrder:
    """Ten steps of 12 rows on two ranks under DDP, left alone, with the held-out loss measured every 4 steps."""
    out = tmp_path_factory.mktemp("whole")
    shape = {"batch_size": 1, "global_batch": 12, "evaluate_every": 4}
    return trained(make_order(tiny_models.llama, rows, out, "ddp", 2, **shape))


@pytest.mark.parametrize(
    ("strategy", "ranks"),
    [
        ("single", 1),
        ("zero3", 2),
        pytest.param("ddp", 3, marks=pytest.mark.long),
        pytest.param("ddp", 4, marks=pytest.mark.long),
        pytest.param("zero2", 2, marks=pytest.mark.long),
        pytest.param("fsdp", 2, marks=pytest.mark.long),
        pytest.param("zero3", 3, marks=pytest.mark.long),
    ],
)
def test_a_run_goes_on_under_another_strategy_and_on_another_number_of_ranks(
    whole: WorkerOrder, strategy: Strategy, ranks: int, tiny_models: TinyModels, rows: Path, tmp_path: Path
) -> None:
    checkpoint = whole.settings.output_dir / "checkpoint-6"  # in the middle of the second epoch
    shape = {"batch_size": 1, "global_batch": 12, "evaluate_every": 4, "resume_from": checkpoint}
    order = trained(make_order(tiny_models.llama, rows, tmp_path / "out", strategy, ranks, **shape))
    assert losses(order) == pytest.approx(losses(whole), abs=1e-5)
    assert difference(adapter(order), adapter(whole)) < 1e-5
    measured, before = (metrics(each)["held_out_losses"][-1]["held_out_loss"] for each in (order, whole))
    assert measured == pytest.approx(before, abs=1e-5)
    assert Manifest.load(tmp_path / "out" / "checkpoint-9").world_size == ranks


@pytest.mark.parametrize(
    ("strategy", "ranks"),
    [
        ("ddp", 3),
        pytest.param("zero2", 3, marks=pytest.mark.long),
        pytest.param("zero3", 3, marks=pytest.mark.long),
        pytest.param("fsdp", 3, marks=pytest.mark.long),
    ],
)
def test_three_ranks_resume_exactly_with_dropout_and_gradient_checkpointing(
    strategy: Strategy, ranks: int, tiny_models: TinyModels, rows: Path, tmp_path: Path
) -> None:
    shape: dict[str, Any] = {"batch_size": 1, "global_batch": 12, "lora_dropout": 0.1, "gradient_checkpointing": True}
    alone = trained(make_order(tiny_models.llama, rows, tmp_path / "alone", strategy, ranks, **shape))
    checkpoint = alone.settings.output_dir / "checkpoint-6"
    shape["resume_from"] = checkpoint
    order = trained(make_order(tiny_models.llama, rows, tmp_path / "out", strategy, ranks, **shape))
    assert difference(adapter(order), adapter(alone)) == 0.0
    assert losses(order) == losses(alone)


def test_measuring_the_held_out_loss_changes_nothing_about_training(
    whole: WorkerOrder, tiny_models: TinyModels, rows: Path, tmp_path: Path
) -> None:
    shape = {"batch_size": 1, "global_batch": 12}
    without = trained(make_order(tiny_models.llama, rows, tmp_path / "out", "ddp", 2, **shape))
    assert difference(adapter(without), adapter(whole)) == 0.0
    found = metrics(whole)["held_out_losses"]
    assert [entry["step"] for entry in found] == [4, 8]
    assert all(3.0 < entry["held_out_loss"] < 6.0 for entry in found)  # 5.5 is chance
    weights = load_file(whole.settings.output_dir / "checkpoint-9" / "adapter_model.safetensors")
    assert set(weights) == set(adapter(whole))
