"""Every example of docs/api.md, run as it stands, in order, against a local Hub that serves a tiny model as "gpt2".

Signatures in the document are compared with the code. Wherever the document prints something, so must the code.
"""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, TinyModels, demo_lines
from tests.local_hub import LocalHub

TOKENS = {"hf_xxxxxxxxxxxxx": "myusername", "hf_cached": "username"}
WIKITEXT_CARD = b"""---
configs:
- config_name: wikitext-2-raw-v1
  data_files:
  - split: train
    path: wikitext-2-raw-v1/train.jsonl
---
"""

# What the document leaves to its reader: data, and the state its helper and error examples assume.
BEFORE = {
    "get_user_input": "import builtins; builtins.input = lambda prompt: print(prompt) or ''; from finetune_cli import *",
    "except RuntimeError": "import sys; dataset = tokenized",
}


def documented_blocks() -> list[str]:
    """The Python blocks of docs/api.md."""
    text = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def signatures() -> list[ast.FunctionDef]:
    """The blocks that are a signature without a body."""
    found = []
    for block in documented_blocks():
        text = block.strip()
        if text.startswith("LLMFineTuner("):
            text = f"def __init__{text.removeprefix('LLMFineTuner')}"
        if text.startswith("def "):
            parsed = ast.parse(text + ": ...").body[0]
            assert isinstance(parsed, ast.FunctionDef)
            found.append(parsed)
    return found


@pytest.mark.parametrize("documented", signatures(), ids=lambda function: function.name)
def test_every_documented_parameter_stands_where_it_is_documented_with_its_default(documented: ast.FunctionDef) -> None:
    import finetune_cli

    owner = finetune_cli if documented.name == "get_user_input" else finetune_cli.LLMFineTuner
    actual = [
        (parameter.name, parameter.default)
        for parameter in inspect.signature(getattr(owner, documented.name)).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name != "self"
    ]
    names = [argument.arg for argument in documented.args.args]
    defaults = [ast.literal_eval(default) for default in documented.args.defaults]
    padded = [inspect.Parameter.empty] * (len(names) - len(defaults)) + defaults
    assert actual == list(zip(names, padded, strict=True))


def test_the_document_has_all_signatures_and_examples() -> None:
    assert len(signatures()) == 11
    assert len(documented_blocks()) == 28


def serve(hub: LocalHub, model: Path) -> None:
    """Everything the examples name on the Hub."""
    hub.add_repository("models", "openai-community/gpt2", {path.name: path.read_bytes() for path in model.iterdir()})
    hub.add_short_name("models", "gpt2", "openai-community/gpt2")
    texts = "\n".join(json.dumps({"text": json.loads(line)["completion"]}) for line in demo_lines(40)).encode()
    files = {"README.md": WIKITEXT_CARD, "wikitext-2-raw-v1/train.jsonl": texts}
    hub.add_repository("datasets", "Salesforce/wikitext", files)
    hub.add_short_name("datasets", "wikitext", "Salesforce/wikitext")
    import pyarrow as pa
    import pyarrow.parquet

    sink = pa.BufferOutputStream()
    pa.parquet.write_table(pa.Table.from_pylist([json.loads(line) for line in demo_lines(30)]), sink)
    name = "data/train_sft-00000-of-00004.parquet"
    hub.add_repository("datasets", "HuggingFaceH4/ultrachat_200k", {name: sink.getvalue().to_pybytes()})


def program(style: str) -> str:
    """All examples in order, each announced by its number; GPT-2 has other layers than the one that names them."""
    blocks = [block for block in documented_blocks() if not block.strip().startswith(("def ", "LLMFineTuner("))]
    parts = []
    for number, block in enumerate(blocks):
        parts.append(f"print('EXAMPLE {number}')")
        parts += [before for mark, before in BEFORE.items() if mark in block]
        parts.append(block if style == "llama" else block.replace('["q_proj", "v_proj"]', '["c_attn"]'))
    return "\n".join(parts)


@pytest.mark.parametrize("style", ["gpt2", "llama"])
def test_every_documented_example_works_as_written(tiny_models: TinyModels, tmp_path: Path, style: str) -> None:
    (tmp_path / "data.jsonl").write_text(
        "\n".join(line.replace('"completion"', '"response"') for line in demo_lines(40)), encoding="utf-8"
    )
    (tmp_path / "examples.py").write_text(program(style), encoding="utf-8")
    with LocalHub(TOKENS) as hub:
        serve(hub, getattr(tiny_models, style))
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))
        }
        done = subprocess.run(
            [sys.executable, "examples.py"],
            cwd=tmp_path,
            env=environment | hub.environment(tmp_path / "hf", token="hf_cached"),
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        uploaded = [hub.files(name) for name in ("myusername/gpt2-finetuned", "username/model-name")]
    for files in uploaded:
        assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= files.keys()
        assert not any(name.startswith(("checkpoint-", "run/")) for name in files)
    printed = done.stdout
    assert "Found columns: ['prompt', 'response']" in printed
    modules = {"gpt2": "['c_attn', 'c_proj']", "llama": "['q_proj', 'v_proj', 'k_proj', 'o_proj']"}[style]
    assert f"Detected modules: {modules}" in printed
    assert re.search(r"^trainable params: [\d,]+ \|\| all params: [\d,]+ \|\| trainable%: \d+\.\d{4}$", printed, re.M)
    assert f"Model uploaded successfully to: {hub.url}/myusername/gpt2-finetuned\n" in printed
    assert len(re.findall(r"^rouge(?:1|2|L): [+-]\d+\.\d\d% improvement$", printed, re.M)) == 3
    assert "Enter model name [gpt2]: " in printed
    assert (tmp_path / "my_model" / "adapter_config.json").exists()
    assert (tmp_path / "merged_model" / "config.json").exists()
