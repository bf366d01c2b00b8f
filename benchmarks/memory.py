"""Predicted against measured memory: short real runs of `lft launch` on the CPU, one after the other.

    python benchmarks/memory.py [NAME ...]

Rows, or packs of short rows, fill max_length (uneven ones nearly) and are trained whole, as the prediction assumes. What
could not be derived (the libraries' own memory) was fitted on the cases marked "fit"; the others were not looked at for it.
"""

import json
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from lft.core.run_dir import RunDir
from lft.demo import demo_settings
from lft.plan.launch_plan import LaunchPlan

ROWS, STEPS = 32, 3
SIZES: dict[str, dict[str, Any]] = {
    "llama-36M": {"hidden_size": 384, "num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 2}
    | {"intermediate_size": 1024, "vocab_size": 32000},
    "llama-110M": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "num_key_value_heads": 12}
    | {"intermediate_size": 2048, "vocab_size": 16000},
    "llama-270M": {"hidden_size": 1024, "num_hidden_layers": 18, "num_attention_heads": 16, "num_key_value_heads": 8}
    | {"intermediate_size": 3584, "vocab_size": 8000},
    "gpt2-36M": {"n_embd": 512, "n_layer": 8, "n_head": 8, "n_positions": 1024, "vocab_size": 20000},
    "gpt2-124M": {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257},
}


@dataclass(frozen=True, slots=True)
class Case:
    """One run. `used` says whether the fit has seen it, or some other change of the prediction."""

    used: str
    model: str
    max_length: int
    batch_size: int
    precision: str = "fp32"
    ranks: int = 1
    strategy: str = "auto"
    lora: dict[str, Any] = field(default_factory=dict)
    rows: Literal["full", "uneven", "packed"] = "full"
    recomputed: bool = False

    @property
    def name(self) -> str:
        """Model, length, batch, precision, ranks and what the adapter is."""
        lora = "".join(f" {key.removeprefix('lora_')}={value}" for key, value in self.lora.items())
        others = ("" if self.strategy == "auto" else f" {self.strategy}") + (
            "" if self.rows == "full" else f" {self.rows}"
        )
        others += " checkpointed" if self.recomputed else ""
        return f"{self.model} {self.max_length}x{self.batch_size} {self.precision} ranks={self.ranks}{others}{lora}"


CASES = (
    Case("fit", "smollm2-135M", 128, 1),
    Case("fit", "smollm2-135M", 512, 4),
    Case("fit", "llama-36M", 256, 8, "bf16", lora={"r": 16}),
    Case("fit", "gpt2-36M", 256, 4),
    Case("fit", "llama-36M", 128, 2, ranks=2),
    Case("fit", "llama-110M", 512, 2, lora={"lora_dropout": 0.0}),
    Case("fit", "llama-36M", 512, 2, rows="packed"),
    Case("held out", "llama-36M", 1024, 2, rows="uneven"),
    Case("held out", "llama-36M", 512, 4, "bf16", rows="uneven"),
    Case("held out", "llama-270M", 256, 2, ranks=2, strategy="zero2", rows="uneven"),
    Case("held out", "llama-110M", 512, 2, rows="packed"),
    Case("held out", "gpt2-36M", 512, 2, rows="packed"),
    Case("held out", "smollm2-135M", 1024, 1, "bf16", lora={"lora_dropout": 0.0}),
    Case("held out", "llama-110M", 384, 4, ranks=2, lora={"r": 64}),
    Case("held out", "llama-110M", 512, 4, "bf16", lora={"target_modules": "all-linear"}),
    Case("held out", "gpt2-124M", 512, 2, lora={"lora_dropout": 0.0}),
    Case("held out", "gpt2-124M", 128, 4, "bf16", ranks=2),
    Case("held out", "llama-270M", 512, 2, "bf16", ranks=2),
    Case("held out", "llama-270M", 256, 2, ranks=2, strategy="zero2"),
    Case("seen", "llama-270M", 256, 2, ranks=2, strategy="zero3"),
    Case("held out", "llama-270M", 256, 2, ranks=2, strategy="fsdp"),
    Case("held out", "llama-270M", 256, 2, "bf16", ranks=2, strategy="fsdp"),
    Case("held out", "smollm2-135M", 512, 4, recomputed=True),
    Case("held out", "llama-36M", 512, 8, "bf16", rows="uneven", recomputed=True),
    Case("held out", "llama-110M", 512, 2, rows="packed", recomputed=True),
    Case("held out", "gpt2-124M", 512, 2, recomputed=True),
    Case("held out", "llama-270M", 256, 2, ranks=2, strategy="fsdp", rows="uneven", recomputed=True),
    Case("held out", "llama-270M", 256, 2, ranks=2, strategy="zero3", rows="uneven", recomputed=True),
)


def main(names: list[str]) -> None:
    """Run the cases whose line contains one of `names` (all without any) and print each as it ends."""
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            if not names or any(name in f"{case.used} {case.name}" for name in names):
                predicted, measured = measure(case, Path(folder))
                figures = f"{predicted / 1e6:.0f} | {measured / 1e6:.0f} | {100 * (predicted / measured - 1):+.1f} %"
                print(f"| {case.used} | {case.name} | {figures} |", flush=True)


def measure(case: Case, folder: Path) -> tuple[int, int]:
    """The plan's prediction and the highest peak of any rank, in bytes."""
    output_dir = folder / case.name.replace(" ", "_")
    settings = {
        "model": {"name": str(model_folder(case.model, folder))},
        "data": {"source": str(data_file(case, folder)), "max_length": case.max_length}
        | {"held_out": 0, "packing": case.rows == "packed"},
        "training": {"max_steps": STEPS, "batch_size": case.batch_size}
        | {"global_batch_size": case.batch_size * case.ranks, "gradient_checkpointing": case.recomputed},
        "benchmark": {"num_prompts": 0},
        "lora": case.lora,
        "launch": {"cpu_procs": case.ranks, "precision": case.precision, "strategy": case.strategy},
        "output_dir": str(output_dir),
    }
    run_file = folder / "run.yaml"
    run_file.write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "lft.cli.main", "launch", str(run_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    run = RunDir(output_dir)
    plan = LaunchPlan.model_validate_json(run.plan.read_text(encoding="utf-8"))
    assert plan.memory is not None
    report = json.loads(run.report.read_text(encoding="utf-8"))
    return plan.memory.total, max(report["training"]["peak_memory_bytes_by_rank"])


def data_file(case: Case, folder: Path) -> Path:
    """Rows of random digits, each of them a token: longer than max_length, a little longer or shorter, or short."""
    shortest, longest = {"full": (2000, 2000), "uneven": (case.max_length * 15 // 16, case.max_length * 17 // 16)}.get(
        case.rows, (20, 200)
    )
    drawn = random.Random(0)
    lengths = [drawn.randint(shortest, longest) for _ in range(8 * ROWS if case.rows == "packed" else ROWS)]
    rows = ["".join(drawn.choices("0123456789", k=length)) for length in lengths]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    return path


def model_folder(name: str, folder: Path) -> Path:
    """The packaged model, or a random one of SIZES with one token a byte, made on first use."""
    if name == "smollm2-135M":
        from lft.train.model import resolve_model

        return Path(resolve_model(str(demo_settings()["model.name"]), print))  # converted here, not in a measured run
    target = folder / name
    if not target.exists():
        import torch
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer = Tokenizer(models.BPE({"<|end|>": 0, **{each: 1 + at for at, each in enumerate(alphabet)}}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(target)
        torch.manual_seed(0)
        special: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 0}
        if name.startswith("gpt2"):
            GPT2LMHeadModel(GPT2Config(**SIZES[name], **special)).save_pretrained(target)
        else:
            config = LlamaConfig(**SIZES[name], **special, max_position_embeddings=2048)
            model: Any = LlamaForCausalLM(config)
            model.to(torch.bfloat16).save_pretrained(target)
    return target


if __name__ == "__main__":
    main(sys.argv[1:])
