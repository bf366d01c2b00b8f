"""The card's snippets run as they stand, and what comes back from a Hub is, for plain peft, the adapter that went there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, TinyModels
from tests.local_hub import LocalHub

TOKEN = "hf_alice_secret"
MAKE = """
import sys, torch
from pathlib import Path
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from lft.publish.card import write_card
from lft.train.adapter import gather_adapter, save_adapter
base, folder, style, named = sys.argv[1:]
torch.manual_seed(0)
model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(r=4, target_modules="all-linear"))
for name, parameter in model.named_parameters():
    if parameter.requires_grad:
        torch.nn.init.normal_(parameter, std=0.3)
model.peft_config["default"].base_model_name_or_path = named
save_adapter(model, gather_adapter(model), AutoTokenizer.from_pretrained(base), Path(folder), style, named)
write_card(Path(folder))
torch.save(model.eval()(input_ids=torch.arange(20)[None]).logits, Path(folder) / "logits.pt")
"""
UPLOAD = """
from finetune_cli import LLMFineTuner
LLMFineTuner("someone/llama", "out").upload_to_huggingface("alice/support", create_new=True, private=True)
"""
READ_BACK = """
import torch
from huggingface_hub import snapshot_download
from pathlib import Path
again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("someone/llama"), snapshot_download(adapter))
logits = again.eval()(input_ids=torch.arange(20)[None]).logits
assert torch.equal(logits, torch.load("out/logits.pt")), "other outputs than here"
print("SAME")
"""


def make(folder: Path, base: Path, style: str, named: str) -> None:
    """An adapter of `base` with large random weights, so that its answers are its own, and lft's card."""
    run([sys.executable, "-c", MAKE, str(base), "out", style, named], folder, {})


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What a program prints that must succeed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_HUB_OFFLINE")}
    done = subprocess.run(
        command, cwd=folder, env=kept | environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert TOKEN not in done.stdout + done.stderr
    return done.stdout


def snippets(card: str) -> str:
    """All Python of a card, as one program."""
    return "".join(re.findall(r"^```python\n(.*?)^```$", card, re.M | re.S))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_snippets_of_a_card_run_in_the_adapter_s_folder(kind: str, tiny_models: TinyModels, tmp_path: Path) -> None:
    make(tmp_path, getattr(tiny_models, kind), "chat" if kind == "llama" else "pair", str(getattr(tiny_models, kind)))
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("apply_chat_template" in card) is (kind == "llama")
    run([sys.executable, "-c", snippets(card)], tmp_path / "out", {"HF_HUB_OFFLINE": "1"})
    merged = json.loads((tmp_path / "out" / "merged" / "config.json").read_text())
    assert merged["model_type"] == kind
    assert (tmp_path / "out" / "merged" / "tokenizer.json").exists()


def test_what_comes_back_from_the_hub_runs_as_the_card_says_and_answers_as_the_adapter_here(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    make(tmp_path, tiny_models.llama, "chat", "someone/llama")
    base = {path.name: path.read_bytes() for path in tiny_models.llama.iterdir() if path.is_file()}
    with LocalHub({TOKEN: "alice"}) as hub:
        hub.add_repository("models", "someone/llama", base | {"README.md": b"---\nlicense: apache-2.0\n---\n"})
        environment = hub.environment(tmp_path / "home", TOKEN)
        told = run([sys.executable, "-c", UPLOAD], tmp_path, environment | {"PYTHONPATH": str(REPOSITORY)})
        assert told == f"Model uploaded successfully to: {hub.url}/alice/support\n"
        assert hub.is_private("alice/support")
        card = hub.files("alice/support")["README.md"].decode()
        said = run([sys.executable, "-c", snippets(card) + READ_BACK], tmp_path, environment)
    assert said.endswith("SAME\n")
    assert "license: apache-2.0\n" in card, "what the Hub says of the base model"
    assert 'adapter = "alice/support"' in card
