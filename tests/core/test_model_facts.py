"""What is known about a model before it is loaded: the facts are those of the real model, and no source breaks the plan."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedModel

from lft.core.model_facts import ModelFacts, UnknownModel, facts_from, read_model_facts
from lft.core.safetensors_header import TensorInfo
from lft.core.settings import LoraSettings, ModelSettings
from lft.train.lora import LoraOptions, apply_lora, target_modules
from tests.conftest import TinyModels
from tests.local_hub.hub import LocalHub

LLAMA: dict[str, Any] = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4} | {
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "vocab_size": 500,
    "rms_norm_eps": 1e-6,
}


def known(model: str | Path) -> ModelFacts:
    """The facts, which must be there."""
    facts = read_model_facts(ModelSettings(name=str(model)))
    assert isinstance(facts, ModelFacts), facts
    return facts


def unknown(model: str | Path) -> str:
    """Why there are no facts, which must not be there."""
    facts = read_model_facts(ModelSettings(name=str(model)))
    assert isinstance(facts, UnknownModel)
    return facts.reason


def on_meta(config: Any) -> PreTrainedModel:
    """A model without memory for its weights."""
    import torch

    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def header_of(model: PreTrainedModel) -> dict[str, TensorInfo]:
    """What its checkpoint's header would say."""
    return {name: TensorInfo("F32", tuple(tensor.shape)) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("targets", ["auto", "all-linear", ("c_attn",), ("q_proj", "down_proj")], ids=str)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_adapter_has_as_many_parameters_as_the_plan_says(
    family: str, targets: Any, tiny_models: TinyModels
) -> None:
    if isinstance(targets, tuple) and (family == "gpt2") != (targets == ("c_attn",)):
        targets = "auto"
    folder = getattr(tiny_models, family)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.requires_grad_(False)
    facts = known(folder)
    assert facts.parameters == model.num_parameters()
    chosen = target_modules(model) if targets == "auto" else targets
    adapted = apply_lora(model, LoraOptions(r=5, lora_alpha=8, lora_dropout=0.0, target_modules=chosen))
    trained, total = adapted.get_nb_trainable_parameters()
    lora = LoraSettings(r=5, target_modules=targets)
    assert (facts.trained_parameters(lora), facts.parameters + facts.trained_parameters(lora)) == (trained, total)


def test_gpt2_has_its_well_known_numbers_with_and_without_a_checkpoint() -> None:
    config = {**GPT2Config().to_dict(), "model_type": "gpt2"}
    with_header = facts_from(config, header_of(on_meta(GPT2Config())))
    from_config = facts_from(config, {})
    lora = LoraSettings(r=8)
    assert with_header.trained_parameters(lora) == from_config.trained_parameters(lora) == 811_008
    assert with_header.parameters + 811_008 == 125_250_816
    assert from_config.parameters == pytest.approx(with_header.parameters, rel=2e-3)
    assert from_config.checkpoint_bytes == {}
    assert (with_header.attention_dropout, with_header.is_gated, with_header.has_rms_norm) == (0.1, False, False)


@pytest.mark.parametrize(
    ("setting", "changes"),
    [
        ({"final_logit_softcapping": 30.0}, True),
        ({"logit_scale": 0.0625}, True),
        ({"text_config": {"logits_scaling": 8}}, True),
        ({"final_logit_softcapping": None, "logit_scale": 1.0}, False),
        ({}, False),
    ],
    ids=str,
)
def test_a_model_that_changes_its_logits_is_known_by_its_configuration(setting: dict[str, Any], changes: bool) -> None:
    assert facts_from(LLAMA | setting, {}).changes_logits is changes


@pytest.mark.parametrize("tied", [True, False])
def test_a_configuration_alone_gives_the_parameters_to_a_thousandth(tied: bool) -> None:
    config = LlamaConfig(**{**LLAMA, "vocab_size": 5000, "tie_word_embeddings": tied})
    real = on_meta(config)
    facts = facts_from({**config.to_dict(), "model_type": "llama"}, {})
    assert facts.parameters == pytest.approx(real.num_parameters(), rel=1e-3)
    peft_model = get_peft_model(real, LoraConfig(r=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]))
    assert facts.trained_parameters(LoraSettings(r=8)) == peft_model.get_nb_trainable_parameters()[0]


def test_shards_and_one_file_are_the_same_model(tiny_models: TinyModels, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(tiny_models.llama).save_pretrained(tmp_path, max_shard_size="200KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert known(tmp_path) == known(tiny_models.llama)


def test_a_half_precision_checkpoint_is_known_by_its_header(tiny_models: TinyModels, tmp_path: Path) -> None:
    import torch

    AutoModelForCausalLM.from_pretrained(tiny_models.llama, dtype=torch.bfloat16).save_pretrained(tmp_path)
    facts, whole = known(tmp_path), known(tiny_models.llama)
    assert (facts.checkpoint_type, whole.checkpoint_type) == ("bf16", "fp32")
    assert facts.checkpoint_bytes == {"BF16": 2 * facts.parameters}
    assert facts.parameters == whole.parameters


def test_a_gguf_file_has_the_facts_of_the_model_it_is_turned_into(tmp_path: Path) -> None:
    config = LlamaConfig(**{**LLAMA, "tie_word_embeddings": False})
    write_gguf(tmp_path / "model.gguf", config)
    facts = known(tmp_path / "model.gguf")
    expected = facts_from({**config.to_dict(), "model_type": "llama"}, header_of(on_meta(config)))
    different = {"linear_layers", "modules", "checkpoint_bytes", "checkpoint_type", "max_positions"}
    assert facts.model_dump(exclude=different) == expected.model_dump(exclude=different)
    lora = LoraSettings(target_modules="all-linear")
    assert facts.trained_parameters(lora) == expected.trained_parameters(lora)
    assert (facts.checkpoint_type, facts.max_positions) == ("bf16", 77)


def write_gguf(path: Path, config: LlamaConfig) -> None:
    """A Llama as llama.cpp writes it: 8-bit weights, a vocabulary of words, which a reader has to pass by."""
    import numpy

    hidden, inner, keys = config.hidden_size, config.intermediate_size, config.hidden_size // 2
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_attention_heads // 2)
    writer.add_context_length(77)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_token_list([f"word {number}" for number in range(config.vocab_size)])
    writer.add_token_scores([0.5] * config.vocab_size)
    shapes = {"token_embd": (config.vocab_size, hidden), "output": (config.vocab_size, hidden)}
    for layer in range(config.num_hidden_layers):
        shapes |= {f"blk.{layer}.{name}": (hidden, hidden) for name in ("attn_q", "attn_output")}
        shapes |= {f"blk.{layer}.{name}": (keys, hidden) for name in ("attn_k", "attn_v")}
        shapes |= {f"blk.{layer}.{name}": (inner, hidden) for name in ("ffn_gate", "ffn_up")}
        shapes[f"blk.{layer}.ffn_down"] = (hidden, inner)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", numpy.zeros(shape, numpy.float16), raw_dtype=GGMLQuantizationType.F16)
    norms = ["output_norm", *(f"blk.{layer}.{name}_norm" for layer in range(3) for name in ("attn", "ffn"))]
    for name in norms:
        writer.add_tensor(f"{name}.weight", numpy.ones(hidden, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kept", [0, 3, 20, 60, 500, 5000])
def test_a_broken_gguf_file_is_an_unknown_model(kept: int, tmp_path: Path) -> None:
    write_gguf(tmp_path / "whole.gguf", LlamaConfig(**LLAMA))
    (tmp_path / "part.gguf").write_bytes((tmp_path / "whole.gguf").read_bytes()[:kept])
    assert "part.gguf" in unknown(tmp_path / "part.gguf")


def test_a_gguf_file_of_a_size_nobody_has_ends_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "long.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 1 << 40, 1 << 40, 1 << 60) + bytes(100))
    assert "no GGUF file" in unknown(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.safetensors", b"", "no safetensors file"),
        ("model.safetensors", struct.pack("<Q", 1 << 50) + b"{}", "no safetensors file"),
        ("model.safetensors", struct.pack("<Q", 2) + b"[1", "Expecting"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "gone.safetensors"}}', "gone.safetensors"),
        ("model.safetensors.index.json", b"{}", "weight_map"),
        ("config.json", b"{}", "model_type"),
        ("config.json", b"not json", "Expecting"),
        ("config.json", b'{"model_type": "mamba", "hidden_size": 8, "num_attention_heads": 1}', "lacks"),
        ("config.json", b'{"model_type": "llama", "hidden_size": "wide", "num_attention_heads": 1}', "wide"),
        ("config.json", b'{"model_type": "llama", "hidden_size": 8, "num_attention_heads": 0}', "lacks"),
    ],
)
def test_a_broken_folder_is_an_unknown_model_that_says_what_is_broken(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / name).write_bytes(content)
    assert words in unknown(tmp_path)


def test_weights_of_fewer_bits_are_counted_by_the_configuration() -> None:
    packed = {"model.layers.0.self_attn.q_proj.weight": TensorInfo("U8", (8, 8))}
    facts = facts_from(LLAMA, packed)
    assert facts.checkpoint_type == "quantized"
    assert facts.parameters == facts_from(LLAMA, {}).parameters


def test_a_hub_model_offline_is_unknown_and_the_reason_says_so() -> None:
    assert "HF_HUB_OFFLINE" in unknown("someone/model")


def test_a_hub_model_is_known_from_the_hub_and_later_from_the_cache(tiny_models: TinyModels, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_models.llama.iterdir()}
    with LocalHub() as hub:
        hub.add_repository("models", "someone/model", files)
        online = hub.environment(tmp_path)
        there, absent = ask("someone/model", online), ask("someone/other", online)
    assert there == known(tiny_models.llama).model_dump(mode="json")
    assert "the Hub says nothing about someone/other" in absent["reason"]
    snapshot = next(tmp_path.glob("hub/models--someone--model/snapshots/*"))
    (snapshot / "model.safetensors").write_bytes(files["model.safetensors"])
    assert ask("someone/model", {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}) == there, "from the cache"


def ask(name: str, environment: dict[str, str]) -> Any:
    """The facts as another process finds them, which has its own Hub; and has loaded nothing heavy for them."""
    script = f"""
import sys
from lft.core.model_facts import read_model_facts
from lft.core.settings import ModelSettings
facts = read_model_facts(ModelSettings(name={name!r}))
assert not {{"torch", "transformers", "peft", "gguf", "safetensors"}} & sys.modules.keys()
print(facts.model_dump_json())
"""
    base = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", script], env=base | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_configuration_of_every_tiny_model_is_read_as_transformers_reads_it(tiny_models: TinyModels) -> None:
    for folder in (tiny_models.gpt2, tiny_models.llama):
        config, facts = AutoConfig.from_pretrained(folder), known(folder)
        assert (facts.hidden_size, facts.layers, facts.heads, facts.vocab_size, facts.max_positions) == (
            config.hidden_size,
            config.num_hidden_layers,
            config.num_attention_heads,
            config.vocab_size,
            config.max_position_embeddings,
        )
        assert facts.tied_embeddings is True
