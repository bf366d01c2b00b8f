"""Variants of LoRA and quantized bases in the plan: refusals by name, the strategies that are left, lines, memory."""

from typing import Any

import pytest
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig

from lft.core.errors import PreflightError, SettingsError
from lft.core.hardware import Machine
from lft.core.model_facts import ModelFacts, facts_from
from lft.core.settings import LoraSettings, RunSettings
from lft.plan.launch_plan import LaunchPlan, make_plan
from lft.plan.memory import predict_memory
from tests.core.test_model_facts import header_of, on_meta
from tests.plan.test_memory import llama_8b
from tests.plan.test_plan import settings
from tests.plan.test_strategy import ROWS, cluster, line

SMALL: dict[str, Any] = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "vocab_size": 300}


def with_bitsandbytes(gpus: int = 1, gigabytes: float = 80) -> Any:
    return cluster(gpus, gigabytes).model_copy(update={"has_bitsandbytes": True})


def plan(on: Machine, facts: ModelFacts | None = None, **sections: Any) -> LaunchPlan:
    """The plan of Llama-3.1-8B, one row of 1,024 tokens at a time."""
    start: dict[str, Any] = {"data": ROWS, "training": {"batch_size": 1}}
    return make_plan(settings(**(start | sections)), on, facts or llama_8b())


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"lora": {"init_lora_weights": "loftq"}}, "loftq quantizes the base model by itself"),
        ({"lora": {"init_lora_weights": "corda"}}, "corda computes the first values from the model's activations"),
        (
            {"lora": {"init_lora_weights": "orthogonal", "r": 9}},
            r"needs an even lora\.r, and it is 9; --set lora\.r=10",
        ),
        (
            {"lora": {"layers_to_transform": [1], "target_modules": "all-linear"}},
            r"layers_to_transform needs lora\.target_modules by name",
        ),
        (
            {"lora": {"use_dora": True}, "launch": {"strategy": "zero3"}},
            "zero3 gathers a weight where its own layer is",
        ),
        ({"lora": {"init_lora_weights": "pissa"}, "launch": {"strategy": "zero3"}}, "zero3 leaves each rank a part"),
        ({"lora": {"modules_to_save": ["norm"]}, "launch": {"strategy": "zero3"}}, "zero3 cuts the modules"),
        ({"model": {"name": "a/b", "quantization": "4bit"}, "launch": {"strategy": "fsdp"}}, "fsdp cuts the base's"),
        ({"model": {"name": "a/b", "quantization": "8bit"}, "launch": {"strategy": "zero2"}}, "zero2 casts the base's"),
        (
            {"model": {"name": "a/b", "quantization": "4bit"}, "lora": {"init_lora_weights": "pissa"}},
            r"pissa needs the weights themselves, and model\.quantization is 4bit",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_reason(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        plan(with_bitsandbytes(4), **sections)


def test_a_quantized_base_needs_its_package_and_no_quantized_checkpoint() -> None:
    asked: dict[str, Any] = {"model": {"name": "a/b", "quantization": "4bit"}}
    with pytest.raises(PreflightError, match="4bit needs the package bitsandbytes") as refusal:
        plan(cluster(1, 80), **asked)
    assert "pip install 'lft[bitsandbytes]'" in refusal.value.next_step
    packed = llama_8b().model_copy(update={"checkpoint_type": "quantized"})
    with pytest.raises(PreflightError, match="is a quantized checkpoint"):
        plan(with_bitsandbytes(), packed, **asked)
    assert "4 bits (NF4" in line(plan(with_bitsandbytes(), **asked), "weights")


def test_only_strategies_that_can_train_the_variant_are_chosen_from() -> None:
    assert plan(cluster(4, 11)).strategy == "fsdp"
    assert plan(cluster(4, 11), lora={"use_dora": True}).strategy != "zero3"
    with pytest.raises(PreflightError, match=r"ddp needs .* device-map with"):
        plan(with_bitsandbytes(4, 3), model={"name": "a/b", "quantization": "4bit"})


def test_the_plan_names_the_variant_and_what_else_is_trained() -> None:
    lora = {"use_dora": True, "use_rslora": True, "init_lora_weights": "gaussian", "loraplus_lr_ratio": 16}
    told = line(
        plan(cluster(1, 80), lora=lora | {"modules_to_save": ["lm_head"], "layers_to_transform": [3]}), "adapter"
    )
    for words in (
        "DoRA, rsLoRA, begun with gaussian, r=8",
        "blocks 3 only",
        "lm_head trained whole",
        "16 times as fast",
    ):
        assert words in told


@pytest.mark.parametrize(
    "variant",
    [
        {"use_dora": True},
        {"layers_to_transform": [1]},
        {"modules_to_save": ["lm_head", "embed_tokens", "norm"]},
        {"use_dora": True, "modules_to_save": ["up_proj"], "layers_to_transform": [0], "target_modules": ["q_proj"]},
    ],
    ids=str,
)
def test_the_plan_counts_the_parameters_a_variant_trains_as_peft_does(variant: dict[str, Any]) -> None:
    import torch

    config = LlamaConfig(**SMALL, num_attention_heads=4, tie_word_embeddings=False)
    facts = facts_from({**config.to_dict(), "model_type": "llama"}, header_of(on_meta(config)))
    lora = LoraSettings.model_validate({"r": 5} | variant)
    torch.manual_seed(0)
    from transformers import LlamaForCausalLM

    options = {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]} | variant
    if "norm" in options.get("modules_to_save", ()):
        options["modules_to_save"] = ["lm_head", "embed_tokens", "model.norm"]
    adapted = get_peft_model(LlamaForCausalLM(config), LoraConfig(r=5, **options))
    assert facts.trained_parameters(lora) == adapted.get_nb_trainable_parameters()[0]


def test_quantized_weights_are_predicted_to_need_a_quarter_and_trained_modules_to_need_their_optimizer() -> None:
    def need(**sections: Any) -> Any:
        asked: RunSettings = settings(**({"data": {"source": "a/b", "max_length": 1024}} | sections))
        return predict_memory(llama_8b(), asked, "single", devices=1, precision="bf16", device="cuda")

    whole, half, quarter = need(), *(need(model={"name": "a/b", "quantization": kind}) for kind in ("8bit", "4bit"))
    ends = 2 * 2 * 128256 * 4096
    inner = whole.weights - ends
    assert half.weights - ends == pytest.approx(inner / 2, rel=1e-3)
    assert quarter.weights - ends == pytest.approx(inner / 2 * 0.5159, rel=1e-2)
    trained = need(lora={"modules_to_save": ["lm_head"]})
    assert trained.optimizer - whole.optimizer == 8 * 128256 * 4096
    assert make_plan(settings(lora={"modules_to_save": ["lm_head"]}), cluster(1, 80), llama_8b()).memory is not None
