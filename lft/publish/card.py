"""The model card, README.md of the adapter, made from what lies beside it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lft.core.files import write_text
from lft.core.run_dir import RunDir
from lft.publish.base_model import License, card_metadata, is_public, known_license
from lft.publish.card_data import card_data
from lft.publish.card_sections import data_section, making_section, result_section, training_section
from lft.publish.card_usage import usage_section
from lft.publish.markdown import code, plain

MARK = "<!-- written by lft; without this line lft leaves the card alone -->"


@dataclass(frozen=True, slots=True)
class Adapter:
    """What the files of an adapter say of it."""

    config: dict[str, Any]
    """adapter_config.json, empty where there is none."""
    base: str
    """The base model as it was named when training."""
    base_revision: str | None
    style: str
    """How prompts were written: chat, pair or text."""
    report: dict[str, Any]
    has_picture: bool

    @classmethod
    def in_folder(cls, folder: Path) -> "Adapter":
        """Read the adapter in `folder`; what is missing or damaged is left empty."""
        config, notes, report = (
            _json(path) for path in (folder / "adapter_config.json", folder / "lft.json", RunDir(folder).report)
        )
        has_template = (folder / "chat_template.jinja").exists()
        return cls(
            config=config,
            base=str(notes.get("base_model") or config.get("base_model_name_or_path") or ""),
            base_revision=(report.get("settings") or {}).get("model", {}).get("revision"),
            style=str(notes.get("prompt_style") or ("chat" if has_template else "pair")),
            report=report,
            has_picture=RunDir(folder).loss_picture.exists(),
        )


def write_card(
    output_dir: Path, repo_name: str | None = None, license: License | None = None, revision: str | None = None
) -> None:
    """Write README.md for the adapter in `output_dir`, unless someone has made it their own.

    Nothing in it names a path of this machine. The same adapter and report give the same text, so that uploading twice
    changes nothing.
    """
    path = output_dir / "README.md"
    if not is_own_card(path):
        write_text(path, card_text(output_dir, repo_name, license, revision))


def is_own_card(path: Path) -> bool:
    """Whether the card at `path` is its user's own."""
    return path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace")


def card_text(
    output_dir: Path, repo_name: str | None, license: License | None = None, revision: str | None = None
) -> str:
    """The card: metadata, loss picture, results with their intervals, use, data, training, how it was made.

    `license` is that of the base model; without it, the one that the base model's files or the card before this one name.
    `revision` is the branch of the repository that the adapter is on, if it is not main.
    """
    adapter = Adapter.in_folder(output_dir)
    before = card_metadata(output_dir / "README.md")
    same_base = before.get("base_model") == adapter.base and is_public(adapter.base)
    license = license or known_license(adapter.base, adapter.base_revision)
    license = license or (License.of(before) if same_base else None)
    title = repo_name.split("/")[-1] if repo_name else "LoRA adapter"
    parts = [
        f"---\n{card_data(title, adapter.base, adapter.report, license).to_yaml()}\n---\n{MARK}",
        f"# {plain(title)}",
        _summary(adapter),
        *(["![loss while training](loss.png)"] if adapter.has_picture else []),
        *result_section(adapter.report),
        *usage_section(adapter.base, adapter.base_revision, adapter.style, repo_name, revision),
        *data_section(adapter.report, adapter.style),
        *training_section(adapter.report),
        *making_section(adapter.report, license),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(adapter: Adapter) -> str:
    config = adapter.config
    modules = config.get("target_modules") or []
    targets = [modules] if isinstance(modules, str) else sorted(modules)
    shown = code(adapter.base if is_public(adapter.base) else Path(adapter.base).name)
    if is_public(adapter.base):
        shown = f"[{shown}](https://huggingface.co/{adapter.base})"
    on = f", on {', '.join(map(code, targets))}" if targets else ""
    return f"A LoRA adapter (r={config.get('r')}, alpha={config.get('lora_alpha')}{on}) for {shown}."


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
