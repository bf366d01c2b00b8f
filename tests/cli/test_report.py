"""lft report: a summary here and a page to look at, of a run in any state, and of several side by side."""

import webbrowser
from pathlib import Path

import pytest

from lft.cli.main import run
from tests.publish.made_up_run import make_run
from tests.runs import fail, new_attempt

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def test_a_finished_run_is_summed_up_and_its_page_and_picture_are_written_anew(
    tmp_path: Path, capsys: Captured
) -> None:
    run_dir = make_run(tmp_path / "out")
    assert run(["report", "out"]) == 0
    said = capsys.readouterr().out
    for words in (
        "attempt 1: done",
        "120 steps",
        "ROUGE-L",
        "+0.099 to +0.143",
        "better",
        f"page       {run_dir.page}",
    ):
        assert words in said
    assert "<h1" in run_dir.page.read_text(encoding="utf-8")
    assert run_dir.loss_picture.read_bytes().startswith(b"\x89PNG")


def test_a_run_that_has_failed_before_its_first_step_has_a_page_that_says_why(tmp_path: Path, capsys: Captured) -> None:
    attempt = new_attempt(tmp_path / "out").attempt_dir
    fail(attempt, 1, "no such file")
    assert run(["report", "out", "--output", "elsewhere.html"]) == 0
    assert "gone without a word" in capsys.readouterr().out
    assert "gone without a word" in Path("elsewhere.html").read_text(encoding="utf-8")
    assert not (tmp_path / "out" / "run" / "report.html").exists()


def test_several_runs_are_compared_here_and_on_one_page(tmp_path: Path, capsys: Captured) -> None:
    make_run(tmp_path / "r8")
    make_run(tmp_path / "r16", lora={"r": 16})
    make_run(tmp_path / "deep" / "r8", ends=False)
    assert run(["report", "r8", "r16", "deep/r8"]) == 0
    said = capsys.readouterr().out
    for words in ("deep/r8", "lora.r", "16", "0.302 (+0.121)", "page       comparison.html"):
        assert words in said
    page = Path("comparison.html").read_text(encoding="utf-8")
    assert page.count('<th scope="row" class="run') == 3


def test_the_browser_is_shown_the_page_or_it_is_said_that_there_is_none(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run(tmp_path / "out")
    shown: list[str] = []

    def open_page(address: str) -> bool:
        shown.append(address)
        return len(shown) == 1

    monkeypatch.setattr(webbrowser, "open", open_page)
    for can_be_started in (True, False):
        assert run(["report", "out", "--open"]) == 0
        assert ("no browser" in capsys.readouterr().out) is not can_be_started
    assert shown == [run_dir.page.as_uri()] * 2


def test_a_folder_that_is_no_run_is_one_clear_error(capsys: Captured) -> None:
    assert run(["report", "nowhere"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_a_plan_that_cannot_be_read_is_one_clear_error(tmp_path: Path, capsys: Captured) -> None:
    run_dir = make_run(tmp_path / "out")
    run_dir.attempts()[-1].plan.write_text("{")
    assert run(["report", "out"]) == 3
    assert "plan.json cannot be read" in capsys.readouterr().err
