"""The adapter's folder: what was written is read again before it counts; and training that is not as planned never starts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from datasets import Dataset

from finetune_cli import LLMFineTuner
from lft.core.errors import LftError, PreflightError
from lft.core.settings import TrainingSettings
from lft.train.adapter import Weights, gather_adapter, save_adapter
from lft.train.strategy import check_order
from tests.conftest import TinyModels
from tests.train.ranks import zero_config

FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"


def without(weights: Weights) -> Weights:
    return {name: tensor for name, tensor in weights.items() if name != FIRST}


def with_empty(weights: Weights) -> Weights:
    return weights | {FIRST: torch.empty(0)}


def with_nan(weights: Weights) -> Weights:
    return weights | {FIRST: torch.full_like(weights[FIRST], float("nan"))}


@pytest.fixture
def finetuner(tiny_models: TinyModels, tmp_path: Path) -> LLMFineTuner:
    ready = LLMFineTuner(str(tiny_models.llama), str(tmp_path / "out"))
    ready.load_model()
    ready.setup_lora(r=4)
    return ready


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (without, "is missing"),
        (with_empty, r"has shape \(0,\), not \(4, 96\)"),
        (with_nan, "is not finite"),
    ],
)
def test_a_damaged_adapter_is_not_kept(
    finetuner: LLMFineTuner, tmp_path: Path, damage: Callable[[Weights], Weights], words: str
) -> None:
    model, tokenizer = finetuner.peft_model, finetuner.tokenizer
    assert model is not None
    assert tokenizer is not None
    weights = gather_adapter(model)
    folder = tmp_path / "saved"
    with pytest.raises(LftError, match=words):
        save_adapter(model, damage(weights), tokenizer, folder, "chat", "base")
    assert list(folder.iterdir()) == []
    save_adapter(model, weights, tokenizer, folder, "chat", "base")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in folder.iterdir()}


def test_training_that_is_not_as_planned_stops_before_its_first_step(finetuner: LLMFineTuner, tmp_path: Path) -> None:
    finetuner.strategy = "device-map"  # on a CPU there is nothing to spread the model over
    with pytest.raises(LftError, match=r"planned device-map over 1 ranks, got single \(PeftModelForCausalLM\) over 1"):
        finetuner.train(Dataset.from_list([{"input_ids": [1, 2, 3, 4]}] * 8), num_epochs=1)
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_a_strategy_needs_its_ranks_and_deepspeed_the_numbers_of_the_settings() -> None:
    settings = TrainingSettings(batch_size=4, max_grad_norm=1.0)
    check_order("zero2", 2, zero_config(2), settings, 2)
    with pytest.raises(PreflightError, match="strategy zero3 needs two ranks or more, and 1 train"):
        check_order("zero3", 1, zero_config(3), settings, 2)
    with pytest.raises(PreflightError, match="strategy single needs one rank, and 2 train"):
        check_order("single", 2, None, settings, 2)
    unclipped = {key: value for key, value in zero_config(2).items() if key != "gradient_clipping"}
    with pytest.raises(LftError, match=r"gradient_clipping is None, not 1\.0; zero_optimization\.stage is 2, not 3"):
        check_order("zero3", 2, unclipped, settings, 2)
