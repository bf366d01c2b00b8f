"""Which rows a step trains, and the loss of a step."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lft.core.rank import Rank
from lft.train.batches import PadToLongest, RankBatchSampler, micro_batches, rows_seen, trim
from lft.train.loss import global_batch_loss, predicting_positions, token_losses
from tests.conftest import TinyModels


@pytest.mark.parametrize("rows", [1, 7, 48, 57, 64])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_every_step_trains_the_same_rows_for_any_number_of_ranks(rows: int, world_size: int, accumulation: int) -> None:
    order, global_batch = list(range(rows)), 4 * accumulation * world_size
    by_rank = [micro_batches(order, 4, rank, world_size) for rank in range(world_size)]
    assert len({len(batches) for batches in by_rank}) == 1
    for step in range(-(-rows // global_batch)):
        turns = slice(step * accumulation, (step + 1) * accumulation)
        trained = [row for batches in by_rank for batch in batches[turns] for row in batch]
        assert sorted(trained) == order[step * global_batch : (step + 1) * global_batch]
    assert rows_seen(-(-rows // global_batch), rows, global_batch) == rows


def test_an_epoch_is_a_new_shuffle_of_all_rows_the_same_on_all_ranks() -> None:
    samplers = [RankBatchSampler(30, 4, Rank(rank=rank, world_size=2), seed=1) for rank in range(2)]

    def epoch(number: int) -> list[int]:
        for sampler in samplers:
            sampler.set_epoch(number)
        return [row for pair in zip(*samplers, strict=True) for batch in pair for row in batch]

    first, second = epoch(0), epoch(1)
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second
    assert epoch(0) == first
    assert [len(sampler) for sampler in samplers] == [4, 4]


@pytest.mark.parametrize(
    ("row", "ids", "labels"),
    [
        ({"input_ids": [5, 6], "labels": [-100, 6]}, [5, 6], [-100, 6]),
        ({"input_ids": [5, 6, 0, 0], "attention_mask": [1, 1, 1, 0]}, [5, 6, 0], [5, 6, 0]),
        ({"input_ids": [0, 0, 5, 6], "attention_mask": [0, 0, 1, 1], "labels": [0, 0, 5, 6]}, [5, 6], [5, 6]),
        ({"input_ids": [5, 6, 0, 0, 0]}, [5, 6, 0], [5, 6, 0]),
        ({"input_ids": [5, 6, 0]}, [5, 6, 0], [5, 6, 0]),
        ({"input_ids": torch.tensor([5, 6]), "labels": torch.tensor([5, -100])}, [5, 6], [5, -100]),
    ],
)
def test_a_caller_s_padding_is_never_trained_even_where_it_is_the_end_token(
    row: dict[str, Any], ids: list[int], labels: list[int]
) -> None:
    assert trim(row, pad_token_id=0) == {"input_ids": ids, "labels": labels}


def test_batches_are_padded_to_their_longest_row_and_first_tokens_have_no_label() -> None:
    batch = PadToLongest(9)([{"input_ids": [1, 2, 3]}, {"input_ids": [4]}])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [-100, -100, -100]]


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
