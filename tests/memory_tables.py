"""The tables of docs/ that say how much memory a run needs, computed as `lft plan` computes it. No model is downloaded."""

from typing import Any

from lft.core.model_facts import ModelFacts, facts_from
from lft.core.settings import RunSettings, Strategy
from lft.plan.memory import MemoryPrediction, predict_memory

KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
CONFIGURATIONS = {
    "SmolLM2-135M": ((576, 1536, 30, 9, 3), 49_152, True),
    "Qwen2.5-0.5B": ((896, 4864, 24, 14, 2), 151_936, True),
    "Llama-3.2-1B": ((2048, 8192, 16, 32, 8), 128_256, True),
    "Qwen2.5-7B": ((3584, 18_944, 28, 28, 4), 152_064, False),
    "Llama-3.1-8B": ((4096, 14_336, 32, 32, 8), 128_256, False),
    "Llama-3.1-70B": ((8192, 28_672, 80, 64, 8), 128_256, False),
}
"""From the models' config.json: KEYS, vocabulary, and whether input and output embeddings are one."""
CHANGES: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "`training.batch_size: 1`, the same global batch": {"training": {"batch_size": 1}},
    "`training.gradient_checkpointing: true`": {"training": {"gradient_checkpointing": True}},
    "both": {"training": {"batch_size": 1, "gradient_checkpointing": True}},
    "`data.max_length: 2048`": {"data": {"max_length": 2048}},
    "`data.max_length: 2048`, `data.packing: true`, `training.batch_size: 1`": {
        "data": {"max_length": 2048, "packing": True},
        "training": {"batch_size": 1},
    },
    "`lora.r: 64`": {"lora": {"r": 64}},
    "`lora.target_modules: all-linear`": {"lora": {"target_modules": "all-linear"}},
    "`lora.lora_dropout: 0`": {"lora": {"lora_dropout": 0.0}},
}
STRATEGIES: tuple[Strategy, ...] = ("ddp", "zero2", "fsdp", "zero3", "device-map")


def facts(name: str) -> ModelFacts:
    """Of a model in CONFIGURATIONS, kept in bf16."""
    shape, vocabulary, tied = CONFIGURATIONS[name]
    config = dict(zip(KEYS, shape, strict=True)) | {"vocab_size": vocabulary, "tie_word_embeddings": tied}
    named = {
        "model_type": "llama",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 32_768,
        "torch_dtype": "bfloat16",
    }
    return facts_from(config | named, {})


def need(name: str, strategy: Strategy, devices: int, **changes: dict[str, Any]) -> MemoryPrediction:
    """Of each GPU, in bf16."""
    values = {"model": {"name": "a/b"}, "data": {"source": "a/b"} | changes.get("data", {})}
    settings = RunSettings.model_validate({**changes, **values})
    return predict_memory(facts(name), settings, strategy, devices=devices, precision="bf16", device="cuda")


def by_model() -> list[str]:
    """What models need on one GPU with the defaults."""
    rows = ["| model | weights | in all | with gradient checkpointing |", "|---|---|---|---|"]
    for name in CONFIGURATIONS:
        plain = need(name, "single", 1)
        again = need(name, "single", 1, training={"gradient_checkpointing": True})
        rows.append(f"| {name} | {gb(plain.weights)} | {gb(plain.total)} | {gb(again.total)} |")
    return rows


def by_setting() -> list[str]:
    """What single settings change for one model on one GPU."""
    rows = [
        "| Llama-3.1-8B on one GPU | activations | the loss, or a layer computed again | in all |",
        "|---|---|---|---|",
    ]
    for words, changes in CHANGES.items():
        found = need("Llama-3.1-8B", "single", 1, **changes)
        rows.append(f"| {words} | {gb(found.activations)} | {gb(found.logits)} | {gb(found.total)} |")
    return rows


def by_strategy() -> list[str]:
    """What strategies need on four GPUs."""
    models = ("Llama-3.1-8B", "Llama-3.1-70B")
    rows = ["| on each of 4 GPUs | " + " | ".join(f"{name} | checkpointing" for name in models) + " |"]
    rows.append("|---" * (1 + 2 * len(models)) + "|")
    for strategy in STRATEGIES:
        found = [
            gb(need(name, strategy, 4, training={"gradient_checkpointing": again}).total)
            for name in models
            for again in (False, True)
        ]
        rows.append(f"| `{strategy}` | {' | '.join(found)} |")
    return rows


def gb(size: int) -> str:
    """A GB is 10^9 bytes, as in the plan."""
    return f"{size / 1e9:.1f} GB"


TABLES = {
    "configuration.md": {"memory by model": by_model, "memory by setting": by_setting},
    "strategies.md": {"memory by strategy": by_strategy},
}
"""Page in docs/ -> the comment above each of its tables, and what writes it."""
