"""Losses and adapters of every strategy that runs on CPU ranks, side by side: the same rows, the same global batch, float32.

`python -m benchmarks.strategies [MODEL] [STEPS]` prints a Markdown table; without MODEL a tiny Llama is made.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tests.conftest import demo_lines, make_llama, run_lft

STRATEGIES = {"single": 1, "ddp": 2, "zero2": 2, "zero3": 2, "fsdp": 2}
"""Strategy -> ranks."""


def main(words: list[str]) -> None:
    """Print the table."""
    steps = int(words[1]) if len(words) > 1 else 8
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        data = scratch / "rows.jsonl"
        data.write_text("\n".join(demo_lines(200)), encoding="utf-8")
        model = Path(words[0]) if words else scratch / "llama"
        if not words:
            make_llama(model)
        print("| strategy | ranks | wrapper | first loss | last loss | largest difference of a loss | of the adapter |")
        print("|---|---|---|---|---|---|---|")
        alone: tuple[list[float], dict[str, torch.Tensor]] | None = None
        for strategy, ranks in STRATEGIES.items():
            training, adapter = train(model, data, scratch / strategy, strategy, ranks, steps)
            losses = [entry["loss"] for entry in training["losses"]]
            alone = alone or (losses, adapter)
            loss = max(abs(one - other) for one, other in zip(losses, alone[0], strict=True))
            weight = max(float((adapter[name] - alone[1][name]).abs().max()) for name in alone[1])
            shown = f"{losses[0]:.6f} | {losses[-1]:.6f} | {loss:.1e} | {weight:.1e}"
            print(f"| {strategy} | {ranks} | {training['wrapper']} | {shown} |", flush=True)


def train(
    model: Path, data: Path, output_dir: Path, strategy: str, ranks: int, steps: int
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A short run; the training part of its report, and its adapter."""
    settings = {
        "model": {"name": str(model)},
        "data": {"source": str(data), "held_out": 0, "max_length": 128},
        "lora": {"lora_dropout": 0.0},
        "training": {
            "max_steps": steps,
            "batch_size": 2,
            "global_batch_size": 8,
            "learning_rate": 1e-3,
            "log_every": 1,
            "save_every": 10_000,
        },
        "benchmark": {"num_prompts": 0},
        "launch": {"cpu_procs": ranks, "strategy": strategy, "precision": "fp32"},
        "output_dir": str(output_dir),
    }
    run_file = output_dir.with_suffix(".yaml")
    run_file.write_text(json.dumps(settings), encoding="utf-8")
    done = run_lft("launch", run_file, cwd=output_dir.parent, timeout_seconds=3600)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    report = json.loads((output_dir / "run" / "report.json").read_text(encoding="utf-8"))
    return report["training"], load_file(output_dir / "adapter_model.safetensors")


if __name__ == "__main__":
    main(sys.argv[1:])
