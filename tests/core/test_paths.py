"""Local path or Hub name, and what is wrong with a path."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lft.core.paths import input_mistakes, looks_local, source_files
from lft.core.run_dir import RunDir


@contextmanager
def ordinary_user() -> Iterator[Path]:
    """A folder of a user whom the file system may refuse something, which it never does root."""
    with tempfile.TemporaryDirectory() as name:
        is_root = os.geteuid() == 0
        os.chmod(name, 0o777)
        if is_root:
            os.setresuid(65534, 65534, 0)
        try:
            yield Path(name)
        finally:
            if is_root:
                os.setresuid(0, 0, 0)


@pytest.mark.parametrize(
    ("name", "is_local"),
    [
        ("gpt2", False),
        ("someone/model", False),
        ("someone/Llama-3.1-8B", False),
        ("someone/model.v2", False),
        ("./model", True),
        ("../model", True),
        ("~/model", True),
        ("/model", True),
        (".", True),
        ("..", True),
        ("a/b/c", True),
        ("C:\\model", True),
        ("model.gguf", True),
        ("someone/model.GGUF", True),
        ("rows.jsonl", True),
        ("rows.csv.gz", True),
        ("data/*.txt", True),
        ("data/rows-[ab]", True),
        ("here", True),
        ("here/inside", True),
    ],
)
def test_a_name_is_local_where_it_exists_or_can_be_nothing_else(
    name: str, is_local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here" / "inside").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert looks_local(name) is is_local


def test_a_source_means_a_file_the_files_of_a_folder_or_those_a_pattern_matches(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.csv.gz", "notes.md", "deep/c.txt", "odd[1].txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def meant(source: str) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in source_files(str(tmp_path / source))]

    assert meant("b.jsonl") == ["b.jsonl"]
    assert meant("") == ["a.csv.gz", "b.jsonl", "odd[1].txt"]
    assert meant("*.jsonl") == ["b.jsonl"]
    assert meant("**/*.txt") == ["deep/c.txt", "odd[1].txt"]
    assert meant("odd[1].txt") == ["odd[1].txt"], "a file whose name looks like a pattern is that file"


@pytest.mark.parametrize(
    ("closed", "mode", "values", "expected"),
    [
        ("folder", 0, {"data": {"source": "folder/rows.csv"}}, "cannot be looked for: no permission in folder"),
        ("folder", 0, {"data": {"source": "folder/deep/rows.csv"}}, "cannot be looked for: no permission in folder"),
        ("folder", 0, {"data": {"source": "./folder"}}, "may not be read by this user"),
        ("folder/rows.csv", 0, {"data": {"source": "folder/rows.csv"}}, "may not be read by this user"),
        ("folder", 0, {"model": {"name": "./folder"}}, "may not be read by this user"),
        ("folder", 0o555, {"output_dir": "folder/out"}, "cannot be written: no permission in {here}/folder"),
        ("folder", 0, {"output_dir": "folder/out/deep"}, "cannot be written: no permission in {here}/folder"),
    ],
)
def test_what_the_file_system_refuses_is_said_in_words(
    closed: str, mode: int, values: dict[str, object], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ordinary_user() as here:
        (here / "folder").mkdir()
        (here / "folder" / "rows.csv").touch()
        monkeypatch.chdir(here)
        (here / closed).chmod(mode)
        found = [what for _, what in input_mistakes({"output_dir": str(here)} | values)]
        (here / closed).chmod(0o777)
    assert len(found) == 1
    assert found[0].endswith(expected.replace("{here}", str(here)))


def test_a_new_attempt_counts_on_from_the_last_by_number(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.next_attempt().number == 0
    for name in ("attempt-9", "attempt-10", "attempt-2", "attempt-old", "other"):
        (run_dir.run / name).mkdir(parents=True)
    assert [attempt.number for attempt in run_dir.attempts()] == [2, 9, 10]
    assert run_dir.next_attempt().folder == tmp_path / "run" / "attempt-11"
