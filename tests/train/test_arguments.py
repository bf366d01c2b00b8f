"""What the Trainer is told of optimizer and kernels."""

from pathlib import Path
from typing import Any

import pytest
from transformers import TrainingArguments

from lft.core.settings import TrainingSettings
from lft.train.trainer import training_arguments


def told(folder: Path, **settings: Any) -> TrainingArguments:
    """The arguments of a run on one CPU rank."""
    return training_arguments(TrainingSettings(**settings), 1, folder, "cpu", "fp32", {})


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit"])
def test_an_optimizer_of_8_bits_is_the_one_of_transformers(optimizer: str, tmp_path: Path) -> None:
    assert told(tmp_path, optimizer=optimizer).optim == optimizer
    assert "adamw_torch" in told(tmp_path).optim


def test_liger_leaves_the_loss_alone(tmp_path: Path) -> None:
    arguments = told(tmp_path, liger=True)
    assert arguments.use_liger_kernel
    assert arguments.liger_kernel_config == {"cross_entropy": False, "fused_linear_cross_entropy": False}
    assert not told(tmp_path).use_liger_kernel


def test_ddp_keeps_its_buckets_as_they_are_also_with_gradient_checkpointing(tmp_path: Path) -> None:
    assert told(tmp_path, gradient_checkpointing=True).ddp_find_unused_parameters is True
