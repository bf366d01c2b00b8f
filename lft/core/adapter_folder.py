"""What a folder holds that answers: an adapter and which base model it belongs to, or a model that is whole."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lft.core.errors import PreflightError, SettingsError
from lft.core.paths import looks_local, missing_path

ADAPTER_CONFIG, MODEL_CONFIG, NOTES = "adapter_config.json", "config.json", "lft.json"
WITH_VIRTUAL_TOKENS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT")
"""Kinds of peft that put tokens of their own before the prompt."""


@dataclass(frozen=True, slots=True)
class TunedFolder:
    """An adapter on its base model; or a whole model, which is then its own base."""

    folder: Path
    base: str
    """Hub id, folder or .gguf file."""
    revision: str | None
    has_adapter: bool
    notes: dict[str, Any]
    """What lft left beside an adapter it trained."""

    @property
    def config_file(self) -> Path:
        """What names the base of an adapter."""
        return self.folder / ADAPTER_CONFIG

    @property
    def base_name(self) -> str:
        """The base as people call it."""
        return self.base if self.base.count("/") == 1 else Path(self.base).name

    @property
    def tokenizer(self) -> str:
        """Where the tokenizer is: beside the adapter, with the chat template it was trained with, or else the base's."""
        return str(self.folder) if (self.folder / "tokenizer_config.json").exists() else self.base


def find_tuned(folder: Path, base: str | None = None) -> TunedFolder:
    """What is in `folder`; `base` is another place of the base model than the one the adapter names.

    Raises SettingsError where it is no folder, PreflightError where it holds nothing that answers.
    """
    folder = folder.expanduser().absolute()
    if not folder.is_dir():
        download = f"an adapter on the Hub: hf download {folder.name} --local-dir FOLDER"
        raise SettingsError(
            [f"{missing_path(str(folder))}; the folder of a run or of an adapter is expected"], next_step=download
        )
    config, notes = _json(folder / ADAPTER_CONFIG), _json(folder / NOTES)
    if not config:
        if not (folder / MODEL_CONFIG).exists():
            raise PreflightError(
                f"{folder} holds neither an adapter ({ADAPTER_CONFIG}) nor a model ({MODEL_CONFIG})",
                next_step="name the output_dir of a finished run; lft status OUTPUT_DIR says how far one is",
            )
        return TunedFolder(folder, str(folder), None, has_adapter=False, notes=notes)
    if (kind := str(config.get("peft_type"))) in WITH_VIRTUAL_TOKENS:
        raise PreflightError(f"the adapter in {folder} is of kind {kind}, whose prompts hold tokens that are no words")
    named = base or notes.get("base_model") or config.get("base_model_name_or_path")
    if not named:
        raise PreflightError(f"the adapter in {folder} names no base model", next_step="name it: --model NAME")
    if looks_local(str(named)) and not Path(named).expanduser().exists():
        raise PreflightError(
            f"the base model of {folder}: {missing_path(str(named))}", next_step="say where it is now: --model FOLDER"
        )
    revision = None if base else config.get("revision")
    return TunedFolder(folder, str(named), revision, has_adapter=True, notes=notes)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
