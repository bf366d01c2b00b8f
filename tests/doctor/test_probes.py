"""lft doctor as it asks: real processes with deadlines, a Hub on this machine, folders, and the verb itself."""

import json
import sys
from pathlib import Path

import pytest

from lft.cli.main import run
from lft.doctor import gather
from lft.doctor.ask import ask, ask_module
from lft.doctor.facts import DriverFacts, Facts, FolderFacts, HubFacts, SlurmFacts, ToolFacts, TorchFacts
from lft.doctor.folder_probe import try_folder
from tests.conftest import run_lft
from tests.local_hub import LocalHub

TOKEN = "hf_ada_secret"
Captured = pytest.CaptureFixture[str]


def test_a_program_that_does_not_answer_is_waited_for_no_longer_than_its_deadline() -> None:
    answer = ask([sys.executable, "-c", "import time; time.sleep(600)"], seconds=0.2)
    assert (answer.output, answer.error) == ("", "no answer within 0.2 s")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["no-such-program"], "No such file or directory"),
        ([sys.executable, "-c", "raise SystemExit('no driver')"], "no driver"),
        ([sys.executable, "-c", "raise SystemExit(9)"], "ended with 9"),
    ],
)
def test_a_program_that_fails_is_an_error_in_its_own_words(argv: list[str], expected: str) -> None:
    assert ask(argv, seconds=30).error == expected


def test_a_torch_that_is_broken_is_told_and_does_not_break_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudnn.so.9: cannot open shared object file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    facts = TorchFacts.model_validate(ask_module("lft.train.probe", seconds=60))
    assert (facts.version, facts.error) == ("", "ImportError: libcudnn.so.9: cannot open shared object file")


def test_the_hub_says_who_we_are_and_the_token_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with LocalHub(tokens={TOKEN: "ada"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        answer = ask_module("lft.doctor.hub_probe", seconds=60)
        assert answer == {"endpoint": hub.url, "has_token": True, "user": "ada"}
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
        assert HubFacts.model_validate(ask_module("lft.doctor.hub_probe", seconds=60)).refused
        monkeypatch.delenv("HF_TOKEN")
        assert ask_module("lft.doctor.hub_probe", seconds=60) == {"endpoint": hub.url, "error": ""}
    assert ask_module("lft.doctor.hub_probe", seconds=60)["error"] == "Connection refused"


def test_a_folder_that_does_not_exist_yet_is_tried_where_it_will_be_and_nothing_is_left(tmp_path: Path) -> None:
    facts = FolderFacts.model_validate({"use": "output", "path": "x"} | try_folder(tmp_path / "runs" / "new"))
    assert (facts.error, facts.locks, facts.renames) == ("", True, True)
    assert facts.free_bytes > 0
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    assert try_folder(tmp_path / "file" / "inner")["error"] == "Not a directory"


def stubbed(monkeypatch: pytest.MonkeyPatch, torch: TorchFacts) -> None:
    """Answers in place of the processes that take long."""
    monkeypatch.setattr(gather, "_torch", lambda: torch)
    monkeypatch.setattr(gather, "_hub", lambda offline: HubFacts(offline="--offline" if offline else "asked"))
    monkeypatch.setattr(gather, "_driver", DriverFacts)
    monkeypatch.setattr(gather, "_slurm", SlurmFacts)
    monkeypatch.setattr(gather, "_tools", lambda: ToolFacts(compiler="c++ 12", ninja="/usr/bin/ninja"))


def test_findings_are_lines_with_what_to_type_and_a_failure_is_exit_code_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    stubbed(monkeypatch, TorchFacts(error="ModuleNotFoundError: No module named 'torch'"))
    assert run(["doctor", "--offline"]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("  looking at Python and torch")
    assert any(line.startswith("  ok    python") for line in lines)
    at = lines.index("  fail  torch        is not installed")
    assert lines[at + 1] == "                 fix pip install torch"
    assert "  ok    hub          not asked (--offline)" in lines
    assert lines[-1].startswith("  1 failure")
    assert run(["doctor", "--offline", "--quiet"]) == 3
    quiet = capsys.readouterr().out
    assert "  fail  torch" in quiet
    assert "  ok " not in quiet
    assert list(tmp_path.iterdir()) == []


def test_the_document_has_findings_and_facts_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("RANK", "3")
    stubbed(monkeypatch, TorchFacts(version="2.9.0", import_seconds=1.0))
    assert run(["doctor", "--json"]) == 0
    text = capsys.readouterr().out
    document = json.loads(text)
    assert Facts.model_validate(document["facts"]).variables["RANK"] == "3"
    assert {finding["level"] for finding in document["findings"]} >= {"ok", "warn"}
    assert TOKEN not in text


def test_the_shape_of_an_allocation_without_slurm_is_a_mistake(capsys: Captured) -> None:
    assert run(["doctor", "--gpus", "8", "--nodes", "2"]) == 2
    assert "--gpus  is for an allocation; add --slurm" in capsys.readouterr().err


def test_this_machine_is_examined_and_torch_answers(tmp_path: Path) -> None:
    done = run_lft("doctor", "--json", "--offline", cwd=tmp_path, timeout_seconds=120)
    document = json.loads(done.stdout)
    facts = Facts.model_validate(document["facts"])
    assert facts.torch.version
    assert facts.torch.import_seconds > 0
    assert [folder.use for folder in facts.folders] == ["output", "cache", "Hub's cache", "temporary files"]
    assert done.returncode == (3 if any(each["level"] == "fail" for each in document["findings"]) else 0)
