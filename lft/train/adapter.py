"""The adapter folder: what is saved at the end of training, and reading it back in another process."""

import json
from pathlib import Path
from typing import Any, get_args

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lft.core.errors import PreflightError
from lft.core.files import files_aside
from lft.train.chat import Style

NOTES = "lft.json"


def save_adapter(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path, style: Style, base_model: str
) -> None:
    """Put adapter, tokenizer and lft.json (how prompts were written, which base model) into `folder`, all or nothing."""
    with files_aside(folder) as temporary:
        # what peft would decide by asking the Hub: the embeddings are frozen and stay with the base model
        model.save_pretrained(str(temporary), save_embedding_layers=False)
        tokenizer.save_pretrained(temporary)
        (temporary / "README.md").unlink(missing_ok=True)  # peft's empty card; the real one is written with the report
        notes = {"base_model": base_model, "prompt_style": style}
        (temporary / NOTES).write_text(json.dumps(notes, indent=1) + "\n", encoding="utf-8")


def load_adapter(model: PreTrainedModel, folder: Path) -> PeftModel:
    """The adapter of `folder` on `model`. Raises PreflightError where there is none or it does not fit."""
    if not (folder / "adapter_config.json").exists():
        raise PreflightError(
            f"{folder} holds no adapter",
            next_step="call setup_lora() and train() first, or name the output_dir of a run",
        )
    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=True)
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        raise PreflightError(f"the adapter in {folder} does not fit this model: {error}") from None
    assert isinstance(adapted, PeftModel)
    return adapted


def saved_style(folder: Path) -> Style | None:
    """How prompts were written when the adapter in `folder` was trained; None for one trained elsewhere."""
    try:
        notes: dict[str, Any] = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return None
    style = notes.get("prompt_style")
    return style if style in get_args(Style) else None
