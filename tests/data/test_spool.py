"""Files that cannot be cut are unpacked once, whoever else wants them and whoever dies over it."""

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lft.core.settings import DataSettings
from lft.data import spool, unpack
from lft.data.example import BadRow
from lft.data.sources import Files, open_source

OPEN = """
import sys, time
from pathlib import Path
from lft.core.settings import DataSettings
from lft.data import spool
from lft.data.sources import open_source

source, cache, marks, must_wait = sys.argv[1:]
unpack = spool._UNPACK[".json"]

def marked(packed, plain):
    Path(marks, f"{__import__('os').getpid()}").touch()
    plain.write(b"1 half a row")
    plain.flush()
    while must_wait == "yes":
        time.sleep(0.01)
    plain.seek(0)
    plain.truncate()
    unpack(packed, plain)

spool._UNPACK[".json"] = marked
opened = open_source(DataSettings(source=source), cache=Path(cache))
print(sum(1 for block in opened.blocks for _ in opened.read(block)), flush=True)
"""
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=10,
)


def opened(path: Path, cache: Path) -> Files:
    """A source of one file."""
    return open_source(DataSettings(source=str(path)), cache=cache)


def rows(source: Files) -> list[Any]:
    """All rows, or what is wrong with them."""
    read = [row for block in source.blocks for _, row in source.read(block)]
    return [str(row) if isinstance(row, BadRow) else row for row in read]


def start(path: Path, folder: Path, *, must_wait: bool) -> subprocess.Popen[str]:
    """A process that opens `path`, and says in marks/ that it unpacks it."""
    (folder / "marks").mkdir(exist_ok=True)
    arguments = [str(path), str(folder / "cache"), str(folder / "marks"), "yes" if must_wait else "no"]
    return subprocess.Popen([sys.executable, "-c", OPEN, *arguments], stdout=subprocess.PIPE, text=True)


def wait_for_mark(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not list((folder / "marks").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(st.characters(codec="utf-8")), json_values, max_size=3) | json_values),
    st.booleans(),
)
def test_a_list_is_unpacked_element_by_element_wherever_its_parts_end(values: list[Any], is_indented: bool) -> None:
    text = json.dumps(values, ensure_ascii=False, indent=2 if is_indented else None).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unpack, "PART_BYTES", 3)
        plain = io.BytesIO()
        unpack.unpack_json(io.BytesIO(text), plain)
    found = [json.loads(line.partition(b" ")[2]) for line in plain.getvalue().splitlines()]
    assert len(found) == len(values)
    assert [row for row in found if isinstance(row, dict)] == [value for value in values if isinstance(value, dict)]


def test_rows_keep_the_numbers_they_had_in_the_file_they_are_from(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text\n"x\ny"\n\nz\n')
    (tmp_path / "b.json").write_text('[{"text": "a"},\n\n{"text": "b"}]')
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'\n{"text": "a"}\n\n{"text": "b"}'))
    for name, places in (
        ("a.csv", ["a.csv:2", "a.csv:5"]),
        ("b.json", ["b.json element 1", "b.json element 2"]),
        ("c.jsonl.gz", ["c.jsonl.gz:2", "c.jsonl.gz:4"]),
    ):
        source = opened(tmp_path / name, tmp_path / "cache")
        read = [(block.file, where) for block in source.blocks for where, _ in source.read(block)]
        assert [source.place(*each) for each in read] == places


def test_cells_are_texts_as_they_stand_and_empty_ones_null(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'zip,text\n00420,\n1,"' + b"long " * 50_000 + b'"\nbad,\xff\n')
    assert rows(opened(path, tmp_path / "cache")) == [
        {"zip": "00420", "text": None},
        {"zip": "1", "text": "long " * 50_000},
        "is not UTF-8 text",
    ]


def test_processes_that_share_a_cache_unpack_a_file_once(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": str(number)} for number in range(1000)]))
    started = [start(path, tmp_path, must_wait=False) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in started] == ["1000\n", "1000\n"]
    assert len(list((tmp_path / "marks").iterdir())) == 1


def test_what_a_killed_process_was_unpacking_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"text": "a"}, {"text": "b"}]))
    first = start(path, tmp_path, must_wait=True)
    wait_for_mark(tmp_path)
    second = start(path, tmp_path, must_wait=False)
    assert second.poll() is None
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert second.communicate(timeout=60)[0] == "2\n"
    assert len(list((tmp_path / "marks").iterdir())) == 2
    left = [file.name for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    assert sorted(left) == ["in-use", "lock", "rows.lines"]


def test_an_unpacked_file_is_found_again_by_its_content(tmp_path: Path) -> None:
    path, cache = tmp_path / "a.json", tmp_path / "cache"
    path.write_text('[{"text": "a"}]')
    opened(path, cache)
    path = path.rename(tmp_path / "b.json")
    opened(path, cache)
    assert len(list((cache / "spool").iterdir())) == 1
    path.write_text('[{"text": "b"}]')
    assert rows(opened(path, cache)) == [{"text": "b"}]


def test_a_process_that_writes_nothing_more_holds_nobody_up_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"text": "a"}, {"text": "b"}]')
    suspended = start(path, tmp_path, must_wait=True)
    try:
        wait_for_mark(tmp_path)
        monkeypatch.setattr(spool, "PATIENCE_SECONDS", 0.5)
        assert rows(opened(path, tmp_path / "cache")) == [{"text": "a"}, {"text": "b"}]
        assert suspended.poll() is None
    finally:
        suspended.kill()
        suspended.communicate()
