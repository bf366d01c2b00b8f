"""The model card: made from what lies beside it, the same for everyone, and never over a card of the user's own."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lft.publish.card import MARK, card_text, write_card

DIFFERENCE = {"mean": 0.1, "low": 0.05, "high": 0.15, "significant": True}
NAMES = ("rouge1", "rouge2", "rougeL", "loss")
REPORT: dict[str, Any] = {
    "settings": {"training": {"learning_rate": 2e-4, "seed": 42}},
    "training": {"steps": 30, "global_batch_size": 16, "precision": "bf16"},
    "benchmark": {
        "prompts": 50,
        "base": dict.fromkeys(NAMES, 0.25),
        "tuned": dict.fromkeys(NAMES, 0.35),
        "difference": dict.fromkeys(NAMES, DIFFERENCE),
    },
}


def finished(folder: Path, base: str, report: dict[str, Any] | None = None) -> Path:
    """The output_dir of a run on `base`."""
    adapter = {"r": 8, "lora_alpha": 32, "target_modules": ["v_proj", "q_proj"], "base_model_name_or_path": base}
    (folder / "run").mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    (folder / "lft.json").write_text(json.dumps({"base_model": base}))
    if report is not None:
        (folder / "run" / "report.json").write_text(json.dumps(report))
    return folder


def metadata(text: str) -> dict[str, Any]:
    """The YAML at the top of a card."""
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_the_card_of_a_public_model_names_it_with_the_numbers_of_the_run(tmp_path: Path) -> None:
    text = card_text(finished(tmp_path, "someone/model", REPORT), "me/support-lora")
    assert metadata(text)["base_model"] == "someone/model"
    for words in (
        "# support-lora\n",
        "r=8, alpha=32, on q_proj, v_proj",
        'from_pretrained("someone/model")',
        'PeftModel.from_pretrained(base, "me/support-lora")',
        "| rougeL | 0.250 | 0.350 | +0.100 (+0.050 to +0.150) |",
        "50 prompts",
        "30 steps of 16 rows, learning rate 0.0002, bf16, seed 42.",
    ):
        assert words in text


@pytest.mark.parametrize("base", ["{here}/models/llama", "./models/llama", "~/models/llama", "models/deep/llama"])
def test_the_card_of_a_local_model_names_no_path_of_this_machine(base: str, tmp_path: Path) -> None:
    local = base.replace("{here}", str(tmp_path))
    text = card_text(finished(tmp_path / "out", local, REPORT), None)
    assert "base_model" not in metadata(text)
    assert 'AutoModelForCausalLM.from_pretrained("llama")' in text
    assert str(tmp_path) not in text
    assert "models/" not in text


def test_the_same_adapter_and_report_give_the_same_card_anywhere(tmp_path: Path) -> None:
    first, second = (finished(tmp_path / name, "someone/model", REPORT) for name in ("a", "b"))
    write_card(first, "me/x")
    before = (first / "README.md").read_bytes()
    write_card(first, "me/x")
    write_card(second, "me/x")
    assert (first / "README.md").read_bytes() == (second / "README.md").read_bytes() == before


@pytest.mark.parametrize(("mark", "is_replaced"), [("", False), (MARK, True)])
def test_a_card_that_its_user_made_their_own_is_left_alone(mark: str, is_replaced: bool, tmp_path: Path) -> None:
    folder = finished(tmp_path, "someone/model", REPORT)
    (folder / "README.md").write_bytes(b"# mine \xff\n" + mark.encode())
    write_card(folder)
    assert (b"# mine" not in (folder / "README.md").read_bytes()) is is_replaced


@pytest.mark.parametrize("report", [None, {"training": None, "benchmark": None}, REPORT | {"benchmark": None}])
def test_a_run_without_numbers_has_a_card_without_them(report: dict[str, Any] | None, tmp_path: Path) -> None:
    text = card_text(finished(tmp_path, "someone/model", report), None)
    assert "## Results" not in text
    assert ("## Training" in text) is bool(report and report["training"])
    assert "None" not in text
