"""The local Hub, proved with the real clients: each runs in a process of its own, with its own home folder."""

import http.client
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from . import LocalHub

ADAPTER = {
    "adapter_model.safetensors": os.urandom(11 * 1024 * 1024),
    "adapter_config.json": b'{"peft_type": "LORA", "r": 8}',
    "README.md": b"---\nlicense: apache-2.0\nlibrary_name: peft\n---\n# A test adapter\n",
    "logs/deep/train log.txt": "h\u00e9llo\n".encode() * 100,
    "empty.txt": b"",
}

CARD = """---
configs:
- config_name: long
  data_files:
  - {split: train, path: long/train-*.KIND}
  - {split: test, path: long/test.KIND}
- config_name: short
  data_files: [{split: train, path: short/train.KIND}]
---
"""


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub(tokens={"hf_alice": "alice", "hf_reader": "alice:ro", "hf_bob": "bob"}) as hub:
        yield hub


def run_client(hub: LocalHub, script: str, folder: Path, token: str | None = None) -> dict[str, Any]:
    """Return what the script leaves in `result`; it runs in `folder`, where its fresh home folder is too."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    quiet = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\nimport json\nprint('RESULT', json.dumps(result))"],
        env=kept | quiet | hub.environment(folder / "home", token),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout.rsplit("RESULT ", 1)[1])
    return result


def write(folder: Path, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def test_a_folder_is_uploaded_and_comes_back_byte_for_byte(hub: LocalHub, tmp_path: Path) -> None:
    write(tmp_path / "adapter", ADAPTER)
    script = """
from pathlib import Path
from huggingface_hub import HfApi, snapshot_download
api = HfApi()
api.create_repo("alice/open")
api.create_repo("alice/open", exist_ok=True)
api.create_repo("alice/closed", private=True)
for name in ("alice/open", "alice/closed"):
    first = api.upload_folder(repo_id=name, folder_path="adapter", commit_message="adapter")
again = api.upload_folder(repo_id="alice/open", folder_path="adapter")
api.upload_file(repo_id="alice/open", path_in_repo="extra.yaml", path_or_fileobj=b"x: 1")
api.delete_file("empty.txt", "alice/open")
api.update_repo_settings("alice/closed", private=False)
api.create_repo("alice/gone")
api.delete_repo("alice/gone")
copy = Path(snapshot_download("alice/closed", token=False))
result = {
    "user": api.whoami()["name"],
    "same": again.oid == api.list_repo_commits("alice/open")[-2].commit_id,
    "copy": {str(path.relative_to(copy)): path.read_bytes().hex() for path in copy.rglob("*") if path.is_file()},
    "listed": sorted(api.list_repo_files("alice/closed")),
    "found": [api.repo_exists(f"alice/{name}") for name in ("open", "closed", "gone")],
    "file": [api.file_exists("alice/open", path) for path in ("extra.yaml", "empty.txt")],
}
"""
    result = run_client(hub, script, tmp_path, "hf_alice")
    assert result["user"] == "alice"
    assert result["same"]
    assert {path: bytes.fromhex(content) for path, content in result["copy"].items()} == ADAPTER
    assert result["listed"] == sorted(ADAPTER)
    assert result["found"] == [True, True, False]
    assert result["file"] == [True, False]
    assert hub.files("alice/closed") == ADAPTER
    kept = {path: content for path, content in ADAPTER.items() if path != "empty.txt"}
    assert hub.files("alice/open") == kept | {"extra.yaml": b"x: 1"}
    assert [commit.title for commit in hub.commits("alice/closed")] == ["initial commit", "adapter"]
    assert len(hub.commits("alice/open")) == 4


def test_refusals_reach_the_client_as_its_own_exceptions(hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repository("models", "alice/open", {"config.json": b"{}"})
    hub.add_repository("datasets", "alice/closed", {"data.csv": b"a\n1\n"}, private=True)
    script = """
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
alice, reader, bob, nobody, stranger = (HfApi(token=t) for t in ("hf_alice", "hf_reader", "hf_bob", False, "hf_wrong"))
closed = {"repo_id": "alice/closed", "repo_type": "dataset"}
put = {"path_or_fileobj": b"new", "path_in_repo": "config.json"}
calls = {
    "wrong token": lambda: stranger.whoami(),
    "no token": lambda: nobody.create_repo("alice/new"),
    "read-only token": lambda: reader.create_repo("alice/new"),
    "foreign namespace": lambda: bob.create_repo("alice/new"),
    "existing repository": lambda: alice.create_repo("alice/open"),
    "upload by a reader": lambda: reader.upload_file(repo_id="alice/open", **put),
    "upload to nothing": lambda: alice.upload_file(repo_id="alice/none", **put),
    "stale parent": lambda: alice.upload_file(repo_id="alice/open", parent_commit="0" * 40, **put),
    "private, no token": lambda: nobody.repo_info(**closed),
    "private, other user": lambda: bob.repo_info(**closed),
    "missing file": lambda: alice.hf_hub_download("alice/open", "none.json"),
    "missing revision": lambda: alice.hf_hub_download("alice/open", "config.json", revision="v2"),
    "elsewhere": lambda: HfApi(endpoint="https://huggingface.co").whoami(token="hf_alice"),
}
result = {}
for what, call in calls.items():
    try:
        call()
    except HfHubHTTPError as error:
        result[what] = [type(error).__name__, error.response.status_code]
    except Exception as error:
        result[what] = [type(error).__name__, None]
"""
    assert run_client(hub, script, tmp_path) == {
        "wrong token": ["HfHubHTTPError", 401],
        "no token": ["HfHubHTTPError", 401],
        "read-only token": ["HfHubHTTPError", 403],
        "foreign namespace": ["HfHubHTTPError", 403],
        "existing repository": ["HfHubHTTPError", 409],
        "upload by a reader": ["HfHubHTTPError", 403],
        "upload to nothing": ["RepositoryNotFoundError", 404],
        "stale parent": ["HfHubHTTPError", 412],
        "private, no token": ["RepositoryNotFoundError", 401],
        "private, other user": ["RepositoryNotFoundError", 404],
        "missing file": ["RemoteEntryNotFoundError", 404],
        "missing revision": ["RevisionNotFoundError", 404],
        "elsewhere": ["ProxyError", None],
    }
    assert ("CONNECT", "huggingface.co:443") in hub.requests
    assert hub.files("alice/open") == {"config.json": b"{}"}
    assert hub.is_private("alice/closed", "datasets")


def test_transformers_loads_a_model_and_a_tokenizer(hub: LocalHub, tmp_path: Path) -> None:
    script = """
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
words = Tokenizer(models.WordLevel({"[UNK]": 0, "hello": 1, "world": 2}, unk_token="[UNK]"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
model = LlamaForCausalLM(LlamaConfig(vocab_size=3, **size))
model.push_to_hub("alice/tiny", private=True)
tokenizer.push_to_hub("alice/tiny")
loaded = AutoModelForCausalLM.from_pretrained("alice/tiny").state_dict()
result = {
    "equal": all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items()),
    "ids": AutoTokenizer.from_pretrained("alice/tiny")("hello world")["input_ids"],
}
"""
    assert run_client(hub, script, tmp_path, "hf_alice") == {"equal": True, "ids": [1, 2]}
    assert hub.is_private("alice/tiny")
    assert all(path.startswith("/") for _, path in hub.requests)


def test_datasets_loads_named_files_and_the_configs_of_a_card(hub: LocalHub, tmp_path: Path) -> None:
    rows = {
        "README.md": CARD.replace("KIND", "jsonl").encode(),
        "long/train-0.jsonl": b'{"word": "r1"}\n',
        "long/train-1.jsonl": b'{"word": "r2"}\n',
        "long/test.jsonl": b'{"word": "r3"}\n',
        "short/train.jsonl": b'{"word": "r4"}\n',
    }
    sheets = {
        "README.md": CARD.replace("KIND", "csv").encode(),
        "long/train-0.csv": b"word\ns1\n",
        "long/test.csv": b"word\ns2\n",
        "short/train.csv": b"word\ns3\n",
    }
    plain = {"data/part.jsonl": b'{"word": "w1"}\n', "data/other.csv": b"word\nw2\n"}
    hub.add_repository("datasets", "alice/rows", rows)
    hub.add_repository("datasets", "alice/sheets", sheets, private=True)
    hub.add_repository("datasets", "alice/plain", plain)
    hub.add_repository("datasets", "alice/hidden", plain, private=True)
    script = """
from datasets import Dataset, DatasetDict, load_dataset
from datasets.exceptions import DatasetNotFoundError
def words(*args, **options):
    return [row["word"] for row in load_dataset(*args, **options)]
splits = {"train": Dataset.from_dict({"word": ["p1", "p2"]}), "test": Dataset.from_dict({"word": ["p3"]})}
DatasetDict(splits).push_to_hub("alice/pushed", "long", private=True)
result = {
    "named file": words("alice/plain", split="train", data_files="data/part.jsonl"),
    "named file of a config": words("alice/rows", "short", split="train", data_files="long/test.jsonl"),
    "other config": [words(f"alice/{name}", "short", split="train") for name in ("rows", "sheets")],
    "streamed": words("alice/pushed", "long", split="train", streaming=True),
}
for name in ("rows", "sheets", "pushed"):
    result[name] = [words(f"alice/{name}", "long", split=split) for split in ("train", "test")]
for name, token in (("alice/none", True), ("alice/hidden", "hf_bob")):
    try:
        load_dataset(name, token=token)
    except DatasetNotFoundError:
        result[name] = "not found"
"""
    assert run_client(hub, script, tmp_path, "hf_alice") == {
        "named file": ["w1"],
        "named file of a config": ["r3"],
        "other config": [["r4"], ["s3"]],
        "rows": [["r1", "r2"], ["r3"]],
        "sheets": [["s1"], ["s2"]],
        "pushed": [["p1", "p2"], ["p3"]],
        "streamed": ["p1", "p2"],
        "alice/none": "not found",
        "alice/hidden": "not found",
    }
    assert hub.is_private("alice/pushed", "datasets")
    outside = {path.split("?")[0] for _, path in hub.requests if not path.startswith("/")}
    assert outside == {hub.url.replace("://", "://datasets-server.") + "/info"}


def test_ordered_failures_hit_only_the_requests_they_name(hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repository("models", "alice/open", {"config.json": b"{}"})
    hub.fail_next(1, path="/resolve/")
    hub.fail_next(1, status=504, path="/commit/")
    script = """
from pathlib import Path
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
api = HfApi()
result = {"read": Path(api.hf_hub_download("alice/open", "config.json")).read_text(), "uploads": []}
for attempt in range(2):
    try:
        api.upload_file(repo_id="alice/open", path_or_fileobj=b"new", path_in_repo="config.json")
        result["uploads"].append("done")
    except HfHubHTTPError as error:
        result["uploads"].append(error.response.status_code)
"""
    assert run_client(hub, script, tmp_path, "hf_alice") == {"read": "{}", "uploads": [504, "done"]}
    assert hub.files("alice/open") == {"config.json": b"new"}
    assert sum("/resolve/" in path for _, path in hub.requests) == 3


def test_nothing_runs_after_the_block_even_with_a_client_still_connected() -> None:
    before = set(threading.enumerate())
    with LocalHub() as hub:
        client = http.client.HTTPConnection(urlsplit(hub.url).netloc, timeout=10)
        client.request("GET", "/api/models/alice/none")
        answer = client.getresponse()
        assert (answer.status, answer.headers["X-Error-Code"]) == (401, "RepoNotFound")
        answer.read()
    assert set(threading.enumerate()) <= before
    client.close()
    with pytest.raises(ConnectionRefusedError):
        client.request("GET", "/")
    assert hub.requests == [("GET", "/api/models/alice/none")]
