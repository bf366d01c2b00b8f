"""Training on packs is training on their rows: the same loss, gradients and adapter, and no row sees another."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from lft.core.errors import PreflightError
from lft.core.order import WorkerOrder
from lft.core.run_dir import Attempt
from lft.core.settings import Strategy, TrainingSettings
from lft.data.packing import pack
from lft.data.token_rows import TokenRows
from lft.train.batches import PackRows, PadToLongest
from lft.train.finetuner import LLMFineTuner
from lft.train.isolation import assert_isolated
from lft.train.lora import LoraOptions, apply_lora
from lft.train.loss import global_batch_loss
from tests.conftest import TinyModels, demo_lines
from tests.train.ranks import adapter, difference, logs, losses, make_order, metrics, run_ranks

CPU = torch.device("cpu")
SIZE = 96


def random_rows(count: int, longest: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Rows of random tokens, most of which are trained."""
    generator = np.random.default_rng(seed)
    rows = []
    for length in generator.integers(2, longest + 1, count).tolist():
        ids = generator.integers(0, 1000, length).astype(np.int32)
        rows.append({"input_ids": ids, "labels": np.where(np.arange(length) < length // 3, -100, ids)})
    return rows


def mistral(window: int) -> PreTrainedModel:
    """A tiny model whose attention looks back `window` tokens; random, with large weights, so that all it sees shows."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=window,
        initializer_range=0.2,
    )
    model = MistralForCausalLM(config)
    model.eval()
    return model


@pytest.fixture(params=["gpt2", "llama", "mistral"])
def model(request: pytest.FixtureRequest, tiny_models: TinyModels) -> Iterator[PreTrainedModel]:
    """A model in float32, without dropout."""
    if request.param == "mistral":
        yield mistral(window=8)
    else:
        yield AutoModelForCausalLM.from_pretrained(getattr(tiny_models, request.param)).eval()


def with_adapter(base: PreTrainedModel) -> PeftModel:
    """The model with an adapter that already does something, without dropout."""
    torch.manual_seed(1)
    tuned = apply_lora(
        copy.deepcopy(base), LoraOptions(r=4, lora_alpha=8, lora_dropout=0.0, target_modules="all-linear")
    )
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.05)
    return tuned


def loss_and_gradients(base: PreTrainedModel, batches: list[dict[str, Any]]) -> tuple[float, torch.Tensor]:
    """The loss of all batches together and the adapter's gradients, one behind the other."""
    tuned, total = with_adapter(base), 0.0
    trained = sum(int((batch["labels"] != -100).sum()) for batch in batches)
    for batch in batches:
        loss = global_batch_loss(tuned(**{k: v for k, v in batch.items() if k != "labels"}), batch["labels"], trained)
        loss.backward()
        total += loss.item()
    return total, torch.cat([part.grad.ravel() for part in tuned.parameters() if part.grad is not None])


@pytest.mark.parametrize("selects", [False, True])
def test_packs_have_the_loss_and_the_gradients_of_their_rows_run_one_by_one(
    model: PreTrainedModel, selects: bool
) -> None:
    rows = random_rows(24, 40)
    packs = pack(np.array([len(row["input_ids"]) for row in rows]), SIZE, seed=0)
    packed = [[rows[row] for row in packs[number]] for number in range(len(packs))]
    assert max(map(len, packed)) > 2
    alone = loss_and_gradients(model, [PadToLongest(0)([row]) for row in rows])
    collate = PackRows(0, selects_logits=selects)
    together = loss_and_gradients(model, [collate(packed[:3]), collate(packed[3:]), collate([])])
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    assert float((together[1] - alone[1]).norm() / alone[1].norm()) < 1e-5


def test_a_pack_of_one_row_is_the_row(model: PreTrainedModel) -> None:
    row = random_rows(1, 30, seed=3)[0]
    packed, padded = PackRows(0)([[row]]), PadToLongest(0)([row])
    assert packed["labels"].tolist() == padded["labels"].tolist()
    assert packed["position_ids"].tolist() == [list(range(len(row["input_ids"])))]
    loss, gradients = loss_and_gradients(model, [packed])
    alone, wanted = loss_and_gradients(model, [padded])
    assert loss == pytest.approx(alone, rel=1e-6)
    assert float((gradients - wanted).norm() / wanted.norm()) < 1e-5


@torch.no_grad()
def test_a_change_in_one_row_of_a_pack_changes_no_bit_of_another(model: PreTrainedModel) -> None:
    first, second, other = random_rows(3, 40, seed=5)
    other = {name: np.resize(values, len(first["input_ids"])) for name, values in other.items()}
    start = len(first["input_ids"])
    logits = [model(**PackRows(0)([[row, second]])).logits[0] for row in (first, other)]
    assert not torch.equal(logits[0][:start], logits[1][:start])
    assert torch.equal(logits[0][start:], logits[1][start:])


def test_a_model_that_keeps_rows_apart_passes_and_stays_as_it_was(model: PreTrainedModel) -> None:
    state = torch.get_rng_state()
    for training in (True, False):
        model.train(training)
        assert_isolated(model, model, CPU)
        assert model.training == training
    assert torch.equal(torch.get_rng_state(), state)
    assert_isolated(model.bfloat16(), model, CPU)


class LeakyLlama(LlamaForCausalLM):
    """Masks as if there were no positions, and borders mean nothing to it."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        known = {name: value for name, value in options.items() if not name.startswith(("cu_seq", "max_length"))}
        return super().forward(*arguments, **known | {"attention_mask": torch.ones(options["input_ids"].shape)})


class CachingLlama(LlamaForCausalLM):
    """Always keeps a cache, and then masks as if there were no positions."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return super().forward(*arguments, **options | {"use_cache": True})


@pytest.mark.parametrize("leaky", [LeakyLlama, CachingLlama])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_in_which_rows_see_each_other_is_refused_by_name_before_the_first_step(
    tiny_models: TinyModels, leaky: type[LlamaForCausalLM], dtype: torch.dtype
) -> None:
    model = leaky.from_pretrained(tiny_models.llama, dtype=dtype)
    with pytest.raises(PreflightError) as caught:
        assert_isolated(model, model, CPU)
    assert f"rows of a pack would see each other in this model ({leaky.__name__})" in str(caught.value)
    assert caught.value.next_step == "--set data.packing=false"


def test_a_pack_trains_like_its_rows_through_the_whole_fine_tuner_and_a_model_that_leaks_is_trained_on_rows(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    """All rows in one step: packed, two packs a micro-batch and accumulated, or one by one."""
    rows = [row | {"labels": row["input_ids"]} for row in random_rows(24, 40)]
    lengths = np.array([len(row["input_ids"]) for row in rows])
    count = len(pack(lengths, SIZE, 42))
    source = dataset(rows)
    weights = []
    for name, size, batch, accumulation in (("rows", None, 12, 2), ("packs", SIZE, -(-count // 2), 2)):
        finetuner = LLMFineTuner(str(tiny_models.llama), str(tmp_path / name))
        finetuner.load_model()
        finetuner.setup_lora(lora_dropout=0.0)
        steps = TrainingSettings(max_grad_norm=0, log_every=1)
        finetuner.train(source, 3, batch, gradient_accumulation_steps=accumulation, settings=steps, pack_size=size)
        assert finetuner.peft_model is not None
        weights.append(
            {name: part.detach() for name, part in finetuner.peft_model.named_parameters() if "lora" in name}
        )
    assert max(float(tensor.abs().max()) for name, tensor in weights[0].items() if "lora_B" in name) > 1e-4
    assert difference(*weights) < 1e-5
    assert finetuner.peft_model is not None
    base = finetuner.peft_model.get_base_model()
    base.__class__ = LeakyLlama
    said: list[str] = []
    finetuner.announce = said.append
    finetuner.train(source, 1, 12, settings=TrainingSettings(max_steps=1), pack_size=SIZE)
    assert "attention  padded batches: rows of a pack would see each other in LeakyLlama" in said
    assert "packing    none in this model: batch sizes count rows, not packs" in said


def dataset(rows: list[dict[str, np.ndarray]]) -> TokenRows:
    """Rows as training takes them."""
    return TokenRows.from_dataset(Dataset.from_list(rows))


def packed_order(model: Path, data: Path, output_dir: Path, strategy: Strategy, ranks: int) -> WorkerOrder:
    """Packs of 96 tokens of the demo's rows, in two global batches of 16 an epoch."""
    order = make_order(model, data, output_dir, strategy, ranks)
    told = order.settings.model_dump(mode="json")
    told["data"]["packing"] = True
    order = order.model_copy(update={"settings": type(order.settings).model_validate(told)})
    order.save(Attempt(order.attempt_dir).order("train"))
    assert set(run_ranks(order)) == {0}, logs(order)
    return order


@pytest.fixture(scope="module")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 rows, in about 40 packs."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(demo_lines(120)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def alone(tiny_models: TinyModels, rows_file: Path, tmp_path_factory: pytest.TempPathFactory) -> WorkerOrder:
    """One rank, trained on packs."""
    return packed_order(tiny_models.llama, rows_file, tmp_path_factory.mktemp("alone"), "single", 1)


@pytest.mark.parametrize(
    ("strategy", "ranks"),
    [
        ("ddp", 2),
        ("ddp", 4),
        ("zero3", 2),
        pytest.param("zero2", 2, marks=pytest.mark.long),
        pytest.param("fsdp", 2, marks=pytest.mark.long),
    ],
)
def test_several_ranks_train_packs_as_one_rank_that_accumulates_does_under_every_strategy(
    alone: WorkerOrder, strategy: Strategy, ranks: int, tiny_models: TinyModels, rows_file: Path, tmp_path: Path
) -> None:
    shared = packed_order(tiny_models.llama, rows_file, tmp_path, strategy, ranks)
    assert (alone.accumulation, shared.accumulation) == (4, 4 // ranks)
    assert losses(shared) == pytest.approx(losses(alone), abs=1e-5)
    assert difference(adapter(shared), adapter(alone)) < 1e-5
    assert metrics(shared)["steps"] == metrics(alone)["steps"] > 2
    assert metrics(alone)["data"]["rows"] > 16 * metrics(alone)["steps"]
