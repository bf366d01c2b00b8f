"""Both distributions hold what a user needs who has no clone, and the wheel is of use before its libraries are there."""

import os
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from lft.cli.main import VERBS
from tests.conftest import REPOSITORY

LIGHT = ("click", "pydantic", "PyYAML", "rich", "psutil", "filelock")
"""What --help, mistakes in run files and lft doctor need."""
BELOW = (
    "pydantic_core",
    "annotated-types",
    "typing_extensions",
    "typing-inspection",
    "Pygments",
    "markdown-it-py",
    "mdurl",
)
"""What these need in turn."""
BUILD = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both distributions: the source made from the tracked files alone, the wheel from the source."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    listing = ["git", "ls-files", "-z", "--cached"]
    tracked = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (REPOSITORY / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    subprocess.run([sys.executable, "-c", BUILD, str(target)], cwd=source, capture_output=True, check=True)
    (archive,) = target.glob("lft-*.tar.gz")
    wheel = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(target), str(archive)]
    subprocess.run([sys.executable, *wheel], check=True)
    return target


@pytest.fixture(scope="module")
def bare(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel and light libraries only: no torch, nor anything near it."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in LIGHT + BELOW:
        found = metadata.distribution(name)
        for top in {Path(str(file)).parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            (packages / top).symlink_to(Path(str(found.locate_file(top))))
    (wheel,) = built.glob("lft-*.whl")
    install = ["-m", "pip", "--python", str(folder), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *install], check=True)
    return folder / "bin"


def lft(bare: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The installed program, with nothing of this environment in reach."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [str(bare / "lft"), *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_has_both_modules_the_demo_and_the_licences_and_no_tests(built: Path) -> None:
    (wheel,) = built.glob("lft-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "finetune_cli.py",
        "lft/py.typed",
        "lft/demo/wordnet.jsonl",
        "lft/train/worker.py",
        "lft/publish/templates/report.html",
    ):
        assert name in names
    assert [name for name in names if name.endswith("LICENSE")]
    assert [name for name in names if name.endswith("WORDNET_LICENSE")]
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "scripts"))]


def test_the_wheel_has_every_module_there_is(built: Path) -> None:
    (wheel,) = built.glob("lft-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(["git", "ls-files", "lft"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not [name for name in tracked.stdout.splitlines() if name.endswith(".py") and name not in names]


def test_the_source_distribution_has_all_that_builds_the_wheel(built: Path) -> None:
    (archive,) = built.glob("lft-*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "finetune_cli.py",
        "lft/py.typed",
        "lft/demo/wordnet.jsonl",
    } <= names
    assert "lft/demo/WORDNET_LICENSE" in names


def test_without_torch_help_and_mistakes_are_as_they_are_with_it(bare: Path, tmp_path: Path) -> None:
    shown = lft(bare, "--help", cwd=tmp_path)
    assert shown.returncode == 0
    assert all(f"  {verb} " in shown.stdout for verb in VERBS)
    (tmp_path / "run.yaml").write_text("model: {name: ./none}\ndata: {source: ./none.jsonl}\nlora: {r: eight}\n")
    refused = lft(bare, "plan", "run.yaml", cwd=tmp_path)
    assert refused.returncode == 2
    assert "settings: 3 mistakes in run.yaml" in refused.stderr


def test_without_torch_the_doctor_says_so_and_what_to_install(bare: Path, tmp_path: Path) -> None:
    done = lft(bare, "doctor", "--offline", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (3, "")
    lines = done.stdout.splitlines()
    assert lines[lines.index("  fail  torch        is not installed") + 1].strip() == "fix pip install torch"
    missing = next(line for line in lines if "missing or too old" in line)
    assert all(name in missing for name in ("transformers", "peft", "pyarrow"))
    assert "lft[deepspeed,gguf,bitsandbytes,liger,fast]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "missing"), [(["launch", "run.yaml"], "torch"), (["data", "inspect", "run.yaml"], "pyarrow")], ids=str
)
def test_a_verb_that_needs_more_names_it_and_is_no_bug(
    arguments: list[str], missing: str, bare: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "run.yaml").write_text("model: {name: a/b}\ndata: {source: ./rows.jsonl}\n")
    done = lft(bare, *arguments, cwd=tmp_path)
    assert done.returncode == 3
    assert missing in done.stderr
    assert "lft doctor" in done.stderr
    assert "Traceback" not in done.stderr
