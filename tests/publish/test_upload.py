"""Uploading to a Hub: what arrives, what is refused, and that no refusal shows the token or a traceback.

The Hub runs on this machine; its client runs in a process of its own, with its own home folder.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lft.core.hardware import Machine
from lft.core.order import WorkerReport
from lft.core.run_dir import Attempt
from lft.core.settings import RunSettings
from lft.plan.launch_plan import make_plan
from tests.local_hub import LocalHub

TOKEN, READER, WRONG = "hf_alice_secret", "hf_reader_secret", "hf_wrong_secret"
KEPT = {
    "adapter_config.json": b'{"r": 8}',
    "adapter_model.safetensors": b"\x00\x01weights",
    "lft.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "tokenizer.model": b"model",
    "chat_template.jinja": b"{{ messages }}",
    "README.md": b"# card\n",
}
PRIVATE_TO_THE_MACHINE = {
    "checkpoint-10/adapter_model.safetensors": b"old",
    "checkpoint-10/tokenizer.json": b"{}",
    "checkpoint-10/tokenizer.model": b"model",
    "run/settings.yaml": b"secret: path",
    "run/attempt-0/rank-0.log": b"log",
    "run/report.json": b"{}",
    "optimizer.pt": b"state",
    "notes.txt": b"mine",
}
SCRIPT = """
import json, sys
from pathlib import Path
from lft.core.errors import UploadError
from lft.publish.upload import upload_adapter
name, options = sys.argv[1], json.loads(sys.argv[2])
try:
    print("RESULT", json.dumps([upload_adapter(Path("out"), name, **options), ""]))
except UploadError as error:
    print("RESULT", json.dumps(["", str(error)]))
"""


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub(tokens={TOKEN: "alice", READER: "alice:ro"}) as hub:
        yield hub


def finished(folder: Path) -> Path:
    """The output_dir of a run."""
    for name, content in (KEPT | PRIVATE_TO_THE_MACHINE).items():
        path = folder / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def in_process(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a client of the Hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, *command],
        env=kept | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def upload(
    hub: LocalHub, folder: Path, name: str = "alice/x", signed_in: str | None = TOKEN, **options: Any
) -> tuple[str, str]:
    """Upload `folder`/out in a fresh process; the address, or what the error says."""
    environment = hub.environment(folder / "home", signed_in)
    done = in_process(["-c", SCRIPT, name, json.dumps(options)], folder, environment)
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout + done.stderr
    address, error = json.loads(done.stdout.rsplit("RESULT ", 1)[1])
    return address, error


def test_an_upload_sends_adapter_tokenizer_and_card_and_nothing_else(hub: LocalHub, tmp_path: Path) -> None:
    finished(tmp_path)
    assert upload(hub, tmp_path, create_new=True) == (f"{hub.url}/alice/x", "")
    assert {name: content for name, content in hub.files("alice/x").items() if name != ".gitattributes"} == KEPT
    assert not hub.is_private("alice/x")


def test_an_upload_tells_nobody_where_the_base_model_lay(hub: LocalHub, tmp_path: Path) -> None:
    finished(tmp_path)
    here = str(tmp_path / "models" / "llama")
    for name, key in (("adapter_config.json", "base_model_name_or_path"), ("lft.json", "base_model")):
        (tmp_path / "out" / name).write_text(json.dumps({"r": 8, key: here}))
    upload(hub, tmp_path, create_new=True)
    uploaded = {name: json.loads(hub.files("alice/x")[name]) for name in ("adapter_config.json", "lft.json")}
    assert uploaded["adapter_config.json"] == {"r": 8, "base_model_name_or_path": "llama"}
    assert uploaded["lft.json"] == {"r": 8, "base_model": "llama"}
    assert here in (tmp_path / "out" / "lft.json").read_text(), "the adapter here still knows"


def test_uploading_the_same_again_changes_nothing(hub: LocalHub, tmp_path: Path) -> None:
    finished(tmp_path)
    first = upload(hub, tmp_path, create_new=True, private=True)
    commits = hub.commits("alice/x")
    assert hub.is_private("alice/x")
    assert upload(hub, tmp_path, create_new=True, private=True) == first
    assert hub.commits("alice/x") == commits
    (tmp_path / "out" / "README.md").write_text("# a better card\n")
    upload(hub, tmp_path)
    assert len(hub.commits("alice/x")) == len(commits) + 1


def test_a_token_that_is_given_is_used_instead_of_the_one_signed_in(hub: LocalHub, tmp_path: Path) -> None:
    address, _ = upload(hub, finished(tmp_path), signed_in=None, token=TOKEN, create_new=True)
    assert address == f"{hub.url}/alice/x"


def test_a_private_upload_never_goes_to_a_public_repository(hub: LocalHub, tmp_path: Path) -> None:
    hub.add_repository("models", "alice/x", {"README.md": b"public"})
    for create_new in (True, False):
        _, error = upload(hub, finished(tmp_path), private=True, create_new=create_new)
        assert error.startswith("alice/x is public, and a private upload was asked for; nothing was uploaded")
    assert hub.files("alice/x") == {"README.md": b"public"}


@pytest.mark.parametrize(
    ("name", "signed_in", "options", "message", "next_step"),
    [
        ("alice/x", WRONG, {"create_new": True}, "does not accept the token", "hf auth login"),
        ("alice/x", TOKEN, {"token": WRONG, "create_new": True}, "does not accept the token", "hf auth login"),
        ("alice/x", READER, {"create_new": True}, "the token may not write to alice/x", "is alice your user name?"),
        ("bob/x", TOKEN, {"create_new": True}, "the token may not write to bob/x", "is bob your user name?"),
        ("alice/there", READER, {}, "the token may not write to alice/there", "hf auth login"),
        ("alice/x", TOKEN, {}, "the repository alice/x does not exist", "create_new"),
        ("alice/x", None, {"create_new": True}, "there is no Hub token on this machine", "hf auth login"),
        ("alice/there", None, {}, "there is no Hub token on this machine", "hf auth login"),
        ("alice/-x-", TOKEN, {"create_new": True}, '"alice/-x-" is not a repository name', "username/repository"),
        ("a/b/c", TOKEN, {"create_new": True}, '"a/b/c" is not a repository name', "username/repository"),
    ],
)
def test_a_refusal_is_one_clear_error_with_what_to_do(
    name: str,
    signed_in: str | None,
    options: dict[str, Any],
    message: str,
    next_step: str,
    hub: LocalHub,
    tmp_path: Path,
) -> None:
    hub.add_repository("models", "alice/there", {"README.md": b"there"})
    address, error = upload(hub, finished(tmp_path), name, signed_in, **options)
    assert not address
    said, _, advice = error.partition("\n  next   ")
    assert message in said
    assert next_step in advice
    assert hub.files("alice/there") == {"README.md": b"there"}


def test_a_hub_that_cannot_be_reached_is_told_from_one_that_refuses(tmp_path: Path) -> None:
    with LocalHub(tokens={TOKEN: "alice"}) as gone:
        pass
    _, error = upload(gone, finished(tmp_path), create_new=True)
    assert error.startswith("the Hub cannot be reached (upload to alice/x): Connect")
    assert "check the network" in error


def test_a_hub_in_trouble_is_named_with_its_status(hub: LocalHub, tmp_path: Path) -> None:
    hub.fail_next(1, status=500, path="/repos/create")
    _, error = upload(hub, finished(tmp_path), create_new=True)
    assert error == "the Hub answered 500 to the upload to alice/x\n  next   try again later"


def test_a_folder_without_an_adapter_is_refused_before_anything_is_created(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    _, error = upload(hub, tmp_path, create_new=True)
    assert error.startswith("out holds no adapter to upload\n  next   train first")
    assert hub.requests == []


@pytest.mark.parametrize(("token", "code"), [(TOKEN, 0), (WRONG, 64)])
def test_lft_upload_finishes_a_run_whose_upload_failed(token: str, code: int, hub: LocalHub, tmp_path: Path) -> None:
    finished(tmp_path)
    (tmp_path / "out" / "README.md").unlink()
    values = {"model": {"name": "a/b"}, "data": {"source": "c/d"}, "upload": {"repo_name": "alice/x"}}
    machine = Machine(gpus=(), cpu_cores=1, memory_bytes=2**33, cpu_computes_bf16=False)
    plan = make_plan(RunSettings.model_validate(values | {"output_dir": tmp_path / "moved since"}), machine)
    attempt = Attempt(tmp_path / "out" / "run" / "attempt-0")
    attempt.folder.mkdir(parents=True, exist_ok=True)
    attempt.plan.write_text(plan.model_dump_json())
    WorkerReport(ok=True, rank=0, stage="training").save(attempt.report("train", 0))
    command = ["-m", "lft.cli.main", "upload", "out", "--create-new", "--private"]
    done = in_process(command, tmp_path, hub.environment(tmp_path / "home", token))
    assert done.returncode == code, done.stderr
    assert "secret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if token == TOKEN:
        assert done.stdout == f"uploaded   {hub.url}/alice/x\n"
        assert hub.is_private("alice/x")
        assert b"# x\n" in hub.files("alice/x")["README.md"]
