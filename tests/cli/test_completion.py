"""Completion, asked by real shells."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lft.cli.completion import SHELLS
from lft.cli.main import VERBS

BASH = """
eval "$(lft completion bash)"
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMPREPLY=()
_lft_completion lft
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def lft_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `lft`, first on the PATH; it tells which heavy libraries completing has imported."""
    program = tmp_path / "bin" / "lft"
    program.parent.mkdir()
    source = tmp_path / "program.py"
    # a shell between them: an interpreter's path on a first line must not have spaces
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(source))} "$@"\n')
    source.write_text(
        "import atexit, sys\n"
        f"atexit.register(lambda: open({str(tmp_path / 'heavy')!r}, 'a').write("
        "'heavy ' * bool({'torch', 'transformers', 'pyarrow'} & sys.modules.keys())))\n"
        "from lft.cli.main import main\nmain()\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return tmp_path


def completed_by_bash(words: str, folder: Path) -> list[str]:
    """What bash offers after these words; a word that is empty is \"\"."""
    script = BASH.format(words=words)
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_completes_verbs_options_and_what_options_take_without_heavy_libraries(lft_on_path: Path) -> None:
    assert completed_by_bash('lft ""', lft_on_path) == list(VERBS)
    assert completed_by_bash("lft sta", lft_on_path) == ["status"]
    assert completed_by_bash("lft data p", lft_on_path) == ["prepare", "prune"]
    assert completed_by_bash("lft launch --st", lft_on_path) == ["--strict", "--strategy"]
    assert completed_by_bash("lft launch --strategy z", lft_on_path) == ["zero2", "zero3"]
    assert completed_by_bash('lft launch --precision ""', lft_on_path) == ["auto", "fp32", "fp16", "bf16"]
    assert completed_by_bash("lft launch --verb", lft_on_path) == ["--verbose"]
    assert completed_by_bash("lft completion z", lft_on_path) == ["zsh"]
    assert (lft_on_path / "heavy").read_text() == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_what_a_shell_is_given_is_accepted_by_that_shell(shell: str, lft_on_path: Path) -> None:
    source = subprocess.run(["lft", "completion", shell], capture_output=True, text=True, check=True).stdout
    assert "_LFT_COMPLETE" in source
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    subprocess.run([shell, "-n"], input=source, capture_output=True, text=True, check=True)
