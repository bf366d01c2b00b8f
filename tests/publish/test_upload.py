"""Uploading to a Hub: what arrives, what is refused, what trouble is waited for, and that nothing shows the token.

The Hub runs on this machine; its client runs in a process of its own, with its own home folder.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lft.core.run_dir import RunDir
from lft.launch.ending import told_end
from lft.launch.outcome import Outcome
from tests.conftest import REPOSITORY
from tests.local_hub import LocalHub
from tests.publish.finished_runs import KEPT, PICTURE, adapter_files, finished_run
from tests.publish.upload_faults import FAULTS, READER, TOKEN, WRONG, Fault
from tests.runs import wait_for

SCRIPT = """
import json, sys
from pathlib import Path
from lft.core.errors import UploadError
from lft.core.settings import UploadSettings
from lft.publish.upload import upload_adapter
name, options = sys.argv[1], json.loads(sys.argv[2])
token = options.pop("token", None)
try:
    done = upload_adapter(Path("out"), UploadSettings.model_construct(repo_name=name, **options), token=token)
    print("RESULT", json.dumps([done.url, "" if done.is_new else "nothing new"]))
except UploadError as error:
    print("RESULT", json.dumps(["", str(error)]))
"""


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub(tokens={TOKEN: "alice", READER: "alice:ro"}) as hub:
        yield hub


def finished(folder: Path) -> Path:
    """The output_dir of a run, with its user's own card."""
    adapter_files(folder / "out")
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
    assert upload(hub, tmp_path, create_new=True, private=True) == (first[0], "nothing new")
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


def test_a_folder_without_an_adapter_is_refused_before_anything_is_created(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    _, error = upload(hub, tmp_path, create_new=True)
    assert error.startswith(
        "out holds no adapter to upload: adapter_config.json and adapter_model.safetensors missing\n  next   train first"
    )
    assert hub.requests == []


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What came of each fault, all done in one process."""
    command = ["-m", "benchmarks.upload_faults", "--json"]
    done = in_process(command, REPOSITORY, {"TMPDIR": str(tmp_path_factory.mktemp("faults"))})
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout + done.stderr
    return {each["name"]: each for each in json.loads(done.stdout)}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_trouble_is_waited_for_and_named_and_everything_arrives_once_or_nothing(
    fault: Fault, played: dict[str, dict[str, Any]]
) -> None:
    result = played[fault.name]
    place, said = 0, result["said"]
    for words in fault.says:
        assert words in said[place:], said
        place = said.index(words, place)
    assert (result["exit_code"], result["arrived"]) == (fault.exit_code, fault.arrives), said
    assert said.count("trying again") == len(result["waits"]) <= 5
    assert sum(result["waits"]) <= 62
    assert "Traceback" not in said
    assert not [word for word in said.split() if "127.0.0.1" in word], "no address of a signed link"


def lft_upload(hub: LocalHub, folder: Path, *options: str, token: str = TOKEN, **environment: str) -> tuple[int, str]:
    """`lft upload out ...`: exit code and all that was printed."""
    own = hub.environment(folder / "home", token) | environment
    done = in_process(["-m", "lft.cli.main", "upload", "out", *options], folder, own)
    assert "secret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def test_weights_that_the_hub_wants_in_parts_arrive_whole(hub: LocalHub, tmp_path: Path) -> None:
    hub.send_in_parts(100_000)
    weights = finished_run(tmp_path / "out", {"repo_name": "alice/x"}, 1_234_567) / "adapter_model.safetensors"
    code, said = lft_upload(hub, tmp_path, "--create-new")
    assert code == 0, said
    assert hub.files("alice/x")[weights.name] == weights.read_bytes()
    sent = [path for method, path in hub.requests if method == "PUT" and "/part-" in path]
    assert len(sent) == len(set(sent)) == 13


def test_lft_upload_makes_card_repository_and_branch_and_says_when_nothing_has_changed(
    hub: LocalHub, tmp_path: Path
) -> None:
    finished_run(tmp_path / "out", {"repo_name": "alice/x"})
    options = ("--create-new", "--private", "--revision", "trial/1", "--commit-message", "Better\n\nby far")
    assert lft_upload(hub, tmp_path, *options) == (
        0,
        "upload     alice/x has no branch trial/1; making it from main\n"
        f"uploaded   {hub.url}/alice/x/tree/trial%2F1 (private, 9 files, 2.4 KiB)\n",
    )
    assert hub.is_private("alice/x")
    assert hub.files("alice/x") == {}, "main is as it was"
    files = hub.files("alice/x", branch="trial/1")
    assert files.keys() == KEPT.keys() | {"loss.png"}
    assert (b"# x\n" in files["README.md"], b"](loss.png)" in files["README.md"]) == (True, True)
    assert files["loss.png"] == PICTURE
    assert [commit.title for commit in hub.commits("alice/x", branch="trial/1")] == ["initial commit", "Better"]
    code, said = lft_upload(hub, tmp_path, *options)
    assert (code, said.startswith(f"unchanged  {hub.url}/alice/x/tree/trial%2F1 (private")) == (0, True)
    assert "all files were there already, no commit was made" in said
    assert len(hub.commits("alice/x", branch="trial/1")) == 2


def test_a_dry_run_lists_files_and_sizes_without_token_network_or_trace(hub: LocalHub, tmp_path: Path) -> None:
    out = finished_run(tmp_path / "out", {"repo_name": "alice/x", "private": True})
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    code, said = lft_upload(hub, tmp_path, "--create-new", "--revision", "next", "--dry-run", token="")
    lines = said.splitlines()
    assert code == 0
    assert lines[0] == f"would go to {hub.url}/alice/x/tree/next (branch next, made if it does not exist, private)"
    assert [line.split()[0] for line in lines[1:-1]] == sorted(KEPT.keys() | {"loss.png"})
    assert "  adapter_model.safetensors  1000 bytes" in lines
    assert lines[-1] == "9 files, 2.4 KiB; nothing was sent"
    assert hub.requests == []
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_dry_run_refuses_the_names_that_an_upload_refuses(hub: LocalHub, tmp_path: Path) -> None:
    finished_run(tmp_path / "out", {"repo_name": "alice/x"})
    code, said = lft_upload(hub, tmp_path, "--dry-run", "--repo-name", "alice/x.git")
    assert code == 64
    assert '"alice/x.git" is not a repository name' in said


def test_the_card_of_a_branch_loads_what_is_on_it(hub: LocalHub, tmp_path: Path) -> None:
    finished_run(tmp_path / "out", {"repo_name": "alice/x"})
    assert lft_upload(hub, tmp_path, "--create-new", "--revision", "next")[0] == 0
    card = hub.files("alice/x", branch="next")["README.md"].decode()
    assert 'PeftModel.from_pretrained(base, adapter, revision="next")' in card
    assert 'AutoTokenizer.from_pretrained(adapter, revision="next")' in card


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (f"{TOKEN}\n", 0, "uploaded   "),
        (None, 64, "the token file cannot be read: No such file or directory"),
        ("", 64, "is no token: one word of letters, digits and signs is expected"),
        (f"{TOKEN}\nand more", 64, "is no token: one word"),
        (f"{TOKEN}\u00e9", 64, "is no token: one word"),
    ],
    ids=["a token", "no file", "nothing", "two lines", "a letter no header can carry"],
)
def test_a_token_comes_from_a_file_and_whatever_else_that_holds_is_not_shown(
    content: str | None, code: int, said: str, hub: LocalHub, tmp_path: Path
) -> None:
    finished_run(tmp_path / "out", {"repo_name": "alice/x", "create_new": True})
    name = "hf_secret_by_mistake" if content is None else "token.txt"
    if content is not None:
        (tmp_path / name).write_text(content)
    ended, text = lft_upload(hub, tmp_path, "--token-file", name, token=WRONG)
    assert (ended, said in text) == (code, True), text


def test_where_the_client_keeps_no_readable_token_is_one_clear_error(hub: LocalHub, tmp_path: Path) -> None:
    finished_run(tmp_path / "out", {"repo_name": "alice/x"})
    code, said = lft_upload(hub, tmp_path, token="", HF_TOKEN_PATH=str(tmp_path))
    assert code == 64
    assert "the Hub's client cannot read its token: Is a directory" in said
    code, said = lft_upload(hub, tmp_path, "--token-file", "a" * 300)
    assert code == 64
    assert "the token file cannot be read" in said
    assert "aaa" not in said, "it may be the token itself"


@pytest.mark.parametrize("name", ["adapter_config.json", "lft.json"])
def test_a_damaged_file_of_the_adapter_is_named(name: str, hub: LocalHub, tmp_path: Path) -> None:
    (finished_run(tmp_path / "out", {"repo_name": "alice/x"}) / name).write_text("{")
    for options in (("--dry-run",), ("--create-new",)):
        code, said = lft_upload(hub, tmp_path, *options)
        assert code == 64
        assert f"{name} is damaged: a JSON object is expected" in said
    assert ("models", "alice/x") not in hub.store.repositories


def test_the_client_s_debug_output_does_not_show_the_token(hub: LocalHub, tmp_path: Path) -> None:
    finished_run(tmp_path / "out", {"repo_name": "alice/x", "create_new": True})
    hub.fail_next(1, 400, "/commit/", f"what is {TOKEN}?")
    code, said = lft_upload(hub, tmp_path, HF_DEBUG="1", HF_HUB_VERBOSITY="debug")
    assert code == 64
    assert "curl" in said, "the client is heard"
    assert "the Hub answered 400 to the upload to alice/x: what is (the token)?" in said


def test_a_card_of_their_own_that_the_hub_does_not_take_is_named_before_anything_is_sent(
    hub: LocalHub, tmp_path: Path
) -> None:
    out = finished_run(tmp_path / "out", {"repo_name": "alice/x", "create_new": True})
    (out / "README.md").write_text("---\nlicense: [1\n---\n# mine\n")
    code, said = lft_upload(hub, tmp_path)
    assert code == 64
    assert "the Hub does not take README.md: Invalid metadata in README.md. - error while parsing the YAML" in said
    assert "  next   mend the lines between --- and --- at its top" in said
    assert hub.files("alice/x") == {}


def test_what_was_uploaded_by_hand_after_a_failure_is_told(hub: LocalHub, tmp_path: Path) -> None:
    out = RunDir(finished_run(tmp_path / "out", {"repo_name": "alice/x", "create_new": True}))
    kept = out.attempts()[-1].outcome
    Outcome(exit_code=0, upload_problem="there is no Hub token on this machine").save(kept)
    assert lft_upload(hub, tmp_path)[0] == 0
    ended = Outcome.load(kept)
    assert ended is not None
    assert told_end(ended) == f"done, uploaded to {hub.url}/alice/x"


def test_ctrl_c_ends_an_upload_that_gets_no_answer_and_says_what_to_type(hub: LocalHub, tmp_path: Path) -> None:
    finished_run(tmp_path / "out", {"repo_name": "alice/x", "create_new": True})
    hub.stall_next(1, "/_large/")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    hears = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's background jobs ignore it
    script = f"import signal, sys; {hears}; from lft.cli.main import run; sys.exit(run(['upload', 'out']))"
    command = [sys.executable, "-c", script]
    environment = kept | hub.environment(tmp_path / "home", TOKEN)
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: any("/_large/" in path for _, path in hub.requests))
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (
        130,
        "stopped; alice/x has all files of this upload, or is as it was\n  next   the same command again\n",
    )
    assert hub.files("alice/x") == {}
