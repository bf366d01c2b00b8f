"""The look of the command line: narrow and wide terminals, colour or none, no terminal at all, --quiet and --verbose."""

import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from fcntl import ioctl
from pathlib import Path

import pytest

from lft.cli.data import DATA_VERBS
from lft.cli.lines import hanging
from lft.cli.main import VERBS, run
from lft.cli.present import RunDisplay
from lft.cli.results import sample_lines, score_lines
from lft.cli.verbosity import forget_verbosity
from lft.cli.version import nvidia_driver
from lft.core.events import Event

MOST_HELP_LINES = 40
RUN_FILE = "model: {name: a/b}\ndata: {source: c/d}\nlaunch: {cpu_procs: 2}\n"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ALL_VERBS = [*VERBS, *(f"data {verb}" for verb in DATA_VERBS), "selftest preempt"]
Captured = pytest.CaptureFixture[str]


def in_a_terminal(arguments: list[str], folder: Path, columns: int, **variables: str) -> str:
    """What `lft` prints to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "lft.cli.main", *arguments],
        cwd=folder,
        env=environment | {"TERM": "xterm-256color"} | variables,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    parts = []
    while select.select([ours], [], [], 60)[0]:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's word for a terminal whose other side is closed
            break
        parts.append(part)
        if not part:
            break
    os.close(ours)
    process.wait(timeout=60)
    return b"".join(parts).decode().replace("\r\n", "\n")


@pytest.mark.parametrize("verb", ["", *ALL_VERBS])
def test_the_help_of_every_verb_fits_a_screen(verb: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([*verb.split(), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= MOST_HELP_LINES
    assert max(map(len, lines)) <= (90 if verb == "" else 80)


def test_help_on_a_narrow_terminal_is_not_cut(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert run(["launch", "--help"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("  lft")]
    assert max(map(len, lines)) <= 40


def test_a_plan_is_wrapped_between_words_on_a_terminal_and_is_one_line_a_choice_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    command = [sys.executable, "-m", "lft.cli.main", "plan", "run.yaml"]
    piped = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    for columns in (60, 80, 120):
        shown = ESCAPE.sub("", in_a_terminal(["plan", "run.yaml"], tmp_path, columns))
        told = [line for line in shown.split("  command")[0].splitlines() if str(tmp_path) not in line]
        assert max(map(len, told)) <= columns
        assert shown.split() == piped.split(), "nothing is left out"
    assert max(map(len, piped.splitlines())) > 120


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_colour_is_sent_where_none_is_wanted(variables: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    plain = in_a_terminal(["plan", "run.yaml"], tmp_path, 80, **variables)
    assert not re.search(r"\x1b\[[\d;]*3\d", plain)
    assert ESCAPE.sub("", plain).split() == ESCAPE.sub("", in_a_terminal(["plan", "run.yaml"], tmp_path, 80)).split()


def test_nothing_but_text_is_written_to_a_pipe_and_colours_only_where_they_are_forced(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    command = [sys.executable, "-m", "lft.cli.main", "plan", "run.yaml"]
    plain = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "\x1b" not in plain
    forced = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"FORCE_COLOR": "1"}, capture_output=True, text=True, check=True
    ).stdout
    assert "\x1b[" in forced
    assert ESCAPE.sub("", forced) == plain, "colours move nothing"


def test_progress_in_a_log_with_forced_colours_is_plain_lines(tmp_path: Path) -> None:
    script = (
        "from lft.cli.present import RunDisplay; from lft.core.events import Event\n"
        "with RunDisplay() as display:\n"
        "    for step in range(9): display.observe(Event('rank-0', 'step', {'step': step + 1, 'total': 9}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"FORCE_COLOR": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "   step 9/9  \n"


def test_quiet_leaves_warnings_and_results_and_verbose_adds_tracebacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (tmp_path / "run.yaml").write_text(RUN_FILE)
    assert run(["launch", "run.yaml", "--gpus", "4", "--dry-run", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.startswith("  note ") for line in lines)
    for arguments in (["--verbose", "launch", "none.yaml"], ["launch", "none.yaml", "-v"]):
        assert run(arguments) == 2
        error = capsys.readouterr().err
        assert "Traceback" in error
        assert "none.yaml  No such file or directory" in error
    assert run(["launch", "none.yaml"]) == 2
    assert "Traceback" not in capsys.readouterr().err, "it is forgotten with the command line it was given in"
    assert run(["-q", "launch", "none.yaml", "-v"]) == 2
    assert "--quiet and --verbose exclude each other" in capsys.readouterr().err


def test_a_quiet_run_tells_warnings_only(capsys: Captured) -> None:
    script_events = (
        Event("rank-0", "stage", {"name": "training"}),
        Event("rank-0", "step", {"step": 9, "total": 9}),
        Event("rank-0", "notice", {"line": "split      9 rows"}),
        Event("rank-0", "warning", {"line": "rows are cut"}),
    )
    assert run(["--quiet", "schema"]) == 0
    capsys.readouterr()
    with RunDisplay() as display:
        for event in script_events:
            display.observe(event)
    forget_verbosity()
    assert capsys.readouterr().out == "  warning    rank 0: rows are cut\n"


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_results_fit_the_terminal_whatever_its_width(width: int) -> None:
    change = {"mean": -2.273, "low": -2.49, "high": -2.072, "significant": True}
    benchmark = {
        "prompts": 128,
        "base": {"loss": 4.912},
        "tuned": {"loss": 2.64},
        "difference": {"loss": change},
    }
    sample = {"prompt": "word " * 40, "reference": "yes", "base": "no\nno", "tuned": "yes"}
    lines = [*score_lines(benchmark, width), *sample_lines([sample])]
    shown = [part for line in lines for part in hanging(line, width)]
    assert max(map(len, shown)) <= width
    text = " ".join(shown)
    for words in ("held-out loss", "4.912", "2.640", "-2.273", "-2.490 to -2.072", "better", "no no"):
        assert words in re.sub(r" +", " ", text)


@pytest.mark.parametrize(
    ("line", "width", "expected"),
    [
        ("  note       one two three", 22, ["  note       one two", "             three"]),
        (
            "  log        /a/path/that/is/longer/than/the/line",
            30,
            ["  log        /a/path/that/is/longer/than/the/line"],
        ),
        ("  next   lft resume runs/x --set a=1", 24, ["  next   lft resume runs/x --set a=1"]),
        ("plain words only, and more of them", 30, ["plain words only, and more of", "them"]),
        ("short", 80, ["short"]),
    ],
)
def test_lines_hang_below_their_text_and_words_stay_whole(line: str, width: int, expected: list[str]) -> None:
    shown = hanging(line, width)
    assert [part.strip() for part in shown if part.strip()] == [part.strip() for part in expected]
    assert shown[0].startswith(expected[0][:2])


def test_the_version_is_what_a_bug_report_needs_and_imports_no_library(tmp_path: Path) -> None:
    script = "import sys; from lft.cli.main import run; code = run(['--version']); print(code, 'torch' in sys.modules)"
    lines = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert lines[-1] == "0 False"
    text = "\n".join(lines)
    for words in (
        "lft 0",
        "Python 3.",
        "torch 2",
        "transformers ",
        "peft ",
        "accelerate ",
        "deepspeed ",
        "NVIDIA driver",
    ):
        assert words in text


def test_the_driver_s_version_is_read_where_the_kernel_tells_it(tmp_path: Path) -> None:
    path = tmp_path / "version"
    path.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n")
    assert nvidia_driver(path) == "550.54.15"
    path.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n")
    assert nvidia_driver(path) == "570.86.10"


def test_a_package_that_is_missing_is_no_bug(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in [name for name in sys.modules if name.startswith(("lft.cli.data_", "lft.cli.preparing", "lft.data."))]:
        monkeypatch.delitem(sys.modules, name)
    assert run(["data", "inspect", "--demo"]) == 3
    error = capsys.readouterr().err
    assert "the package pyarrow is not installed for" in error
    assert "lft doctor" in error
