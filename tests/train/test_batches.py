"""Rows as tensors, padded or packed, and the loss of a step."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.masking_utils import find_packed_sequence_indices

from lft.train.batches import PackRows, PadToLongest
from lft.train.loss import global_batch_loss, predicting_positions, token_losses
from tests.conftest import TinyModels


def test_batches_are_padded_to_their_longest_row_and_first_tokens_have_no_label() -> None:
    batch = PadToLongest(9)([{"input_ids": np.arange(1, 4), "labels": [1, 2, 3]}, {"input_ids": [4], "labels": [4]}])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [-100, -100, -100]]


def test_packs_begin_their_positions_again_for_each_row_and_predict_nothing_across_a_border() -> None:
    batch = PackRows(9)([[ROWS[0], ROWS[1]], [ROWS[2]], []])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 15, 16, 17], [25, 26, 27, 28, 9, 9, 9, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 3, 0, 1, 2, 3]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 8, 9, -100, 16, 17], [-100, -100, -100, 28, *[-100] * 4]]
    whole = [{"input_ids": [1, 2], "labels": [1, 2]}] * 2
    assert PackRows(9)([whole])["labels"].tolist() == [[-100, 2, -100, 2]]
    ones = PackRows(9)([[{"input_ids": [7], "labels": [7]}] * 2, [{"input_ids": [7], "labels": [7]}]])
    rows = find_packed_sequence_indices(ones["position_ids"])
    assert rows is not None
    assert rows.tolist() == [[0, 1], [0, 1]]
    assert PackRows(9)([])["labels"].tolist() == [[-100]]
    assert "attention_mask" not in batch


def load(folder: Path) -> Any:
    """A tiny model in float32."""
    return AutoModelForCausalLM.from_pretrained(folder)


ROWS = [
    {"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, 7, 8, 9]},
    {"input_ids": [15, 16, 17], "labels": [-100, 16, 17]},
    {"input_ids": [25, 26, 27, 28], "labels": [-100, -100, -100, 28]},
]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("selects", [False, True])
def test_parts_of_a_global_batch_add_up_to_the_token_mean_of_rows_run_one_by_one(
    tiny_models: TinyModels, name: str, selects: bool
) -> None:
    model = load(getattr(tiny_models, name))
    alone = []
    for row in ROWS:
        labels = torch.tensor([row["labels"]])
        trained = int((labels != -100).sum())
        alone.append(float(model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss.detach()) * trained)
    collate = PadToLongest(0, selects_logits=selects)
    total = torch.tensor(0.0)
    for part in (ROWS[:2], ROWS[2:], []):
        batch = collate(part)
        labels = batch.pop("labels")
        total = total + global_batch_loss(model(**batch), labels, 6)
    assert total.item() == pytest.approx(sum(alone) / 6, rel=1e-5)


def test_a_batch_without_trained_tokens_has_a_loss_of_zero_and_gradients_of_zero(tiny_models: TinyModels) -> None:
    model = load(tiny_models.llama)
    batch = PadToLongest(0, selects_logits=True)([])
    labels = batch.pop("labels")
    loss = global_batch_loss(model(**batch), labels, 10)
    loss.backward()
    assert loss.item() == 0
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_only_positions_that_predict_are_projected_and_each_loss_knows_its_row(tiny_models: TinyModels) -> None:
    batch = PadToLongest(0, selects_logits=True)(ROWS)
    assert batch["logits_to_keep"].tolist() == predicting_positions(batch["labels"]).tolist() == [0, 1, 2, 3]
    labels = batch.pop("labels")
    few = PadToLongest(0, selects_logits=True)(ROWS[2:])
    assert few["logits_to_keep"].tolist() == [2]
    model = copy.deepcopy(load(tiny_models.llama))
    _, rows = token_losses(model(**batch).logits, labels)
    assert torch.bincount(rows).tolist() == [3, 2, 1]
