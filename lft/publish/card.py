"""The model card, README.md of the adapter, made from what lies beside it."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from lft.core.files import write_text
from lft.core.paths import looks_local
from lft.core.run_dir import RunDir

_USE = """\
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}")
model = PeftModel.from_pretrained(base, "{adapter}")
tokenizer = AutoTokenizer.from_pretrained("{adapter}")
```"""


MARK = "<!-- written by lft; without this line lft leaves the card alone -->"


def write_card(output_dir: Path, repo_name: str | None = None) -> None:
    """Write README.md for the adapter in `output_dir`, unless someone has made it their own.

    Nothing in it names a path of this machine. The same adapter and report give the same text, so that uploading twice
    changes nothing.
    """
    path = output_dir / "README.md"
    if not path.exists() or MARK in path.read_text(encoding="utf-8", errors="replace"):
        write_text(path, card_text(output_dir, repo_name))


def card_text(output_dir: Path, repo_name: str | None) -> str:
    """The card: metadata, results with their interval, how to use the adapter, how it was made."""
    adapter = _json(output_dir / "adapter_config.json")
    report = _json(RunDir(output_dir).report)
    base = str(_json(output_dir / "lft.json").get("base_model") or adapter.get("base_model_name_or_path") or "")
    is_public = bool(base) and not looks_local(base)
    data = ModelCardData(
        base_model=base if is_public else None,
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["lora", "lft"],
    )
    shown = base if is_public else Path(base).name
    modules = adapter.get("target_modules") or []
    targets = modules if isinstance(modules, str) else ", ".join(sorted(modules))
    parts = [
        f"---\n{data.to_yaml()}\n---\n{MARK}",
        f"# {repo_name.split('/')[-1] if repo_name else 'LoRA adapter'}",
        f"A LoRA adapter (r={adapter.get('r')}, alpha={adapter.get('lora_alpha')}, on {targets}) for {shown}.",
        *_results(report),
        "## Use",
        _USE.format(base=shown, adapter=repo_name or "PATH_OF_THIS_FOLDER"),
        *_training(report),
    ]
    return "\n\n".join(parts) + "\n"


def _results(report: dict[str, Any]) -> list[str]:
    benchmark = report.get("benchmark")
    if not benchmark:
        return []
    rows = ["| on held-out rows | base | tuned | difference, 95 % interval |", "|---|---|---|---|"]
    for name in ("rouge1", "rouge2", "rougeL", "loss"):
        change = benchmark["difference"][name]
        rows.append(
            f"| {name} | {benchmark['base'][name]:.3f} | {benchmark['tuned'][name]:.3f} "
            f"| {change['mean']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f}) |"
        )
    return ["## Results", "\n".join(rows), f"{benchmark['prompts']} prompts, greedy answers."]


def _training(report: dict[str, Any]) -> list[str]:
    training = report.get("training")
    if not training:
        return []
    asked = report["settings"]["training"]
    line = (
        f"{training['steps']} steps of {training['global_batch_size']} rows, learning rate {asked['learning_rate']:g}, "
        f"{training['precision']}, seed {asked['seed']}."
    )
    return ["## Training", line]


def _json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return value
