"""A model of random weights and a few rows for it, made on the spot without torch: for trials of everything but learning."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

HIDDEN, INTERMEDIATE, LAYERS, HEADS = 64, 128, 2, 4
ROWS = 64
END = "<|end|>"


def make_tiny(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """A Llama of 0.1 M parameters, whose tokens are bytes, and a .jsonl file; returns their paths. Raises OSError."""
    model, data = folder / "model", folder / "rows.jsonl"
    model.mkdir(parents=True, exist_ok=True)
    vocabulary = [*sorted(pre_tokenizers.ByteLevel.alphabet()), END]
    _write_tokenizer(model, vocabulary)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(vocabulary),
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": 128,
        "bos_token_id": len(vocabulary) - 1,
        "eos_token_id": len(vocabulary) - 1,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
    }
    (model / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    save_file(_weights(len(vocabulary), seed), model / "model.safetensors", metadata={"format": "pt"})
    rows = ({"prompt": f"{a} + {b} =", "completion": str(a + b)} for a in range(8) for b in range(ROWS // 8))
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return model, data


def _weights(vocabulary: int, seed: int) -> dict[str, np.ndarray]:
    """By the names transformers knows them by; linear layers are (out, in)."""
    generator = np.random.default_rng(seed)
    shapes = {"model.embed_tokens": (vocabulary, HIDDEN)}
    for layer in range(LAYERS):
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        shapes |= {f"{attention}.{name}_proj": (HIDDEN, HIDDEN) for name in "qkvo"}
        shapes |= {f"{mlp}.{name}_proj": (INTERMEDIATE, HIDDEN) for name in ("gate", "up")}
        shapes |= {f"{mlp}.down_proj": (HIDDEN, INTERMEDIATE)}
    norms = ["model.norm"]
    norms += [
        f"model.layers.{n}.{norm}" for n in range(LAYERS) for norm in ("input_layernorm", "post_attention_layernorm")
    ]
    drawn = {f"{name}.weight": generator.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    return drawn | {f"{name}.weight": np.ones(HIDDEN, np.float32) for name in norms}


def _write_tokenizer(model: Path, vocabulary: list[str]) -> None:
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(vocabulary)}, merges=[]))
    tokenizer.add_special_tokens([END])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(model / "tokenizer.json"))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END}
    (model / "tokenizer_config.json").write_text(json.dumps(named), encoding="utf-8")
