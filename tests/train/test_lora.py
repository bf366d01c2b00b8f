"""Target modules of the model families, and what an adapter does to a model."""

from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    CodeGenConfig,
    FalconConfig,
    GPT2Config,
    GPTBigCodeConfig,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MptConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PretrainedConfig,
    RobertaConfig,
    XGLMConfig,
)

from lft.core.errors import PreflightError
from lft.train.lora import LoraOptions, apply_lora, linear_layers, target_modules
from tests.conftest import TinyModels

SMALL: dict[str, Any] = {
    "num_hidden_layers": 1,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 64,
}
LLAMA = ["q_proj", "v_proj", "k_proj", "o_proj"]


def on_meta(config: PretrainedConfig) -> Any:
    """A model without weights: names are all that counts."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GPT2Config(n_layer=1), ["c_attn", "c_proj"]),
        (GPTBigCodeConfig(n_layer=1), ["c_attn", "c_proj"]),
        (LlamaConfig(**SMALL), LLAMA),
        (MistralConfig(**SMALL), LLAMA),
        (OPTConfig(num_hidden_layers=1), ["q_proj", "v_proj", "k_proj", "out_proj"]),
        (GPTJConfig(n_layer=1), ["q_proj", "v_proj", "k_proj", "out_proj"]),
        (PhiConfig(**SMALL), ["q_proj", "v_proj", "k_proj", "dense"]),
        (RobertaConfig(**SMALL, is_decoder=True), ["query", "value", "key", "dense"]),
        (Phi3Config(**SMALL, pad_token_id=0), ["qkv_proj", "o_proj"]),
        (CodeGenConfig(n_layer=1), ["qkv_proj", "out_proj"]),
        (GPTNeoXConfig(**SMALL), ["query_key_value", "dense"]),
        (FalconConfig(num_hidden_layers=1), ["query_key_value", "dense"]),
        (BloomConfig(n_layer=1), ["query_key_value", "dense"]),
        (MptConfig(n_layers=1), ["Wqkv", "out_proj"]),
        (XGLMConfig(num_layers=1), ["q_proj", "v_proj", "k_proj", "out_proj"]),
    ],
    ids=lambda value: value.model_type if isinstance(value, PretrainedConfig) else None,
)
def test_a_family_s_attention_layers_are_found_by_what_the_model_really_has(
    config: PretrainedConfig, expected: list[str]
) -> None:
    model = on_meta(config)
    assert target_modules(model) == expected
    ends = {name.rsplit(".", 1)[-1] for name in linear_layers(model)}
    assert set(expected) <= ends


def test_a_model_of_no_known_family_gets_an_adapter_on_all_linear_layers() -> None:
    config = AutoConfig.for_model("mamba", num_hidden_layers=1, hidden_size=32, vocab_size=64)
    assert target_modules(on_meta(config)) == "all-linear"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_adapters_are_float32_and_the_base_is_frozen_whatever_its_type(
    tiny_models: TinyModels, dtype: torch.dtype
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_models.gpt2, dtype=dtype)
    options = LoraOptions(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["c_attn", "c_proj"])
    adapted = apply_lora(model, options)
    for name, parameter in adapted.named_parameters():
        assert parameter.requires_grad == ("lora_" in name)
        assert parameter.dtype == (torch.float32 if "lora_" in name else dtype)


def test_a_target_the_model_lacks_is_refused_with_those_it_has(tiny_models: TinyModels) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_models.llama)
    options = LoraOptions(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["q_proj", "c_attn", "lm_head"])
    with pytest.raises(PreflightError, match=r"no layer c_attn, lm_head; its linear layers are down_proj, gate_proj"):
        apply_lora(model, options)
