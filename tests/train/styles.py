"""Tiny models of the families that differ in attention and output projection, with an adapter, in float32."""

import copy
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.models.bloom import BloomConfig
from transformers.models.cohere import CohereConfig
from transformers.models.gemma2 import Gemma2Config
from transformers.models.gpt2 import GPT2Config
from transformers.models.llama import LlamaConfig
from transformers.models.mamba import MambaConfig
from transformers.models.mistral import MistralConfig
from transformers.models.qwen2 import Qwen2Config
from transformers.models.qwen3 import Qwen3Config

VOCABULARY = 300
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SMALL: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 64, "bos_token_id": 1, "eos_token_id": 2}
OF_GPT2: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 4, "resid_pdrop": 0, "embd_pdrop": 0, "attn_pdrop": 0}
STYLES: dict[str, Any] = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "gpt2": GPT2Config(vocab_size=VOCABULARY, **OF_GPT2, bos_token_id=1, eos_token_id=2),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16, attention_bias=True),
    "gemma2": Gemma2Config(**SHAPE, head_dim=16, sliding_window=8),
    "mistral": MistralConfig(**SHAPE, sliding_window=8),
    "cohere": CohereConfig(**SHAPE),
    "bloom": BloomConfig(**SMALL, n_layer=2, n_head=4),
    "mamba": MambaConfig(**SMALL, num_hidden_layers=2),
}
LENGTHS = (7, 30, 1, 110, 12, 97)
"""Of rows: short ones, which are grouped, and long ones, which are not; one has nothing to train."""


def tiny(style: str, dropout: float = 0.0, dtype: torch.dtype = torch.float32) -> PeftModel:
    """A model with random weights, and an adapter of all of its layers that is not zero, in training mode."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(copy.deepcopy(STYLES[style]), dtype=dtype)
    base.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=0)
    base.requires_grad_(False)
    targets = ["in_proj"] if style == "mamba" else "all-linear"
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=dropout, target_modules=targets, task_type="CAUSAL_LM")
    config.fan_in_fan_out = style == "gpt2"
    model = get_peft_model(base, config)
    assert isinstance(model, PeftModel)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.train()


def rows() -> list[dict[str, torch.Tensor]]:
    """Rows of LENGTHS tokens, of which about the second half is trained; each input_ids and labels (1, tokens)."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for length in LENGTHS:
        ids = torch.randint(3, VOCABULARY, (1, length), generator=generator)
        labels = ids.clone()
        labels[:, : length // 2 + 1] = -100
        found.append({"input_ids": ids, "labels": labels})
    return found


def pack() -> dict[str, torch.Tensor]:
    """All rows in one sequence: input_ids, labels and position_ids (1, tokens)."""
    together = {name: torch.cat([row[name] for row in rows()], dim=1) for name in ("input_ids", "labels")}
    return together | {"position_ids": torch.cat([torch.arange(length) for length in LENGTHS])[None]}


def gradients(model: PeftModel) -> dict[str, torch.Tensor]:
    """Those of the adapter; they are cleared."""
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    model.zero_grad()
    return found


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Of all gradients together, relative."""
    assert one.keys() == other.keys() != set()
    first, second = (torch.cat([values[name].flatten() for name in sorted(values)]) for values in (one, other))
    return float((first - second).norm() / second.norm())


def one_by_one(model: PeftModel) -> float:
    """The mean loss of all trained tokens by transformers' and peft's own code, each row alone, with its gradients."""
    trained = sum(int((row["labels"][:, 1:] != -100).sum()) for row in rows())
    total = 0.0
    for row in rows():
        if (row["labels"][:, 1:] != -100).any():
            loss = model(**row, use_cache=False, num_items_in_batch=torch.tensor(trained)).loss
            loss.backward()
            total += loss.item()
    return total
