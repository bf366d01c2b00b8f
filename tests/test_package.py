"""The wheel holds what a user needs who has no clone."""

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.conftest import REPOSITORY


def test_the_wheel_has_both_modules_the_demo_and_the_licences_and_no_tests(tmp_path: Path) -> None:
    source = tmp_path / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, tracked.split("\0")):
        if (REPOSITORY / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "."]
    subprocess.run([*command, str(source)], cwd=tmp_path, check=True)
    (wheel,) = tmp_path.glob("lft-*.whl")
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
