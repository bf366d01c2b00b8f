"""Data sets of a Hub: loaded as they are asked for, or only their first rows."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lft.core.errors import DataError
from lft.core.settings import DataSettings
from lft.data.sources import open_source
from tests.local_hub import LocalHub

READ = """
import json, sys
from pathlib import Path
from lft.core.errors import DataError
from lft.core.settings import DataSettings
from lft.data.sources import open_source

asked, cache, rows_needed = json.loads(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
for data in asked:
    try:
        source = open_source(DataSettings(**data), cache=cache, rows_needed=rows_needed)
        rows = [(source.place(block.file, where), row) for block in source.blocks for where, row in source.read(block)]
        print(json.dumps([rows, source.identity()]))
    except DataError as error:
        print(json.dumps(str(error)))
"""
FILES = {
    "train.jsonl": b"".join(
        json.dumps({"text": f"row {number}", "n": number}).encode() + b"\n" for number in range(3000)
    ),
    "test.jsonl": b'{"text": "test", "n": 1}\n',
}


def read(hub: LocalHub, folder: Path, asked: list[dict[str, object]], rows_needed: int | None = None) -> list[Any]:
    """What a process finds in data sets of the hub: rows with their places and the identity, or the error."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(asked), str(folder / "cache"), json.dumps(rows_needed)],
        env=kept | hub.environment(folder / "home"),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_data_sets_are_loaded_by_split_files_and_revision_and_refusals_are_in_words(tmp_path: Path) -> None:
    with LocalHub() as hub:
        hub.add_repository("datasets", "someone/rows", FILES)
        whole, test, part, gone, odd = read(
            hub,
            tmp_path,
            [
                {"source": "someone/rows", "num_samples": 2},
                {"source": "someone/rows", "split": "test"},
                {"source": "someone/rows", "data_files": "test.jsonl", "revision": "main"},
                {"source": "someone/gone"},
                {"source": "someone/rows", "split": "nothing"},
            ],
        )
    assert whole[0] == [
        ["someone/rows row 1", {"text": "row 0", "n": 0}],
        ["someone/rows row 2", {"text": "row 1", "n": 1}],
    ]
    assert test[0] == part[0] == [["someone/rows row 1", {"text": "test", "n": 1}]]
    assert "/" not in json.dumps(whole[1])
    assert str(gone).startswith('data set "someone/gone" cannot be loaded from the Hub: ')
    assert 'data set "someone/rows" cannot be loaded from the Hub: ' in odd


def test_streaming_reads_the_first_rows_only_and_keeps_them_by_commit(tmp_path: Path) -> None:
    asked: list[dict[str, object]] = [{"source": "someone/rows", "streaming": True}]
    with LocalHub() as hub:
        hub.add_repository("datasets", "someone/rows", FILES)
        first = read(hub, tmp_path, asked, 1500)
        rows: Any = first[0][0]
        assert [row for _, row in rows] == [{"text": f"row {number}", "n": number} for number in range(1500)]
        requests = len(hub.requests)
        assert read(hub, tmp_path, asked, 1500) == first
        assert len(hub.requests) - requests <= 1, "only the commit is asked for"
        (few,) = read(hub, tmp_path, [asked[0] | {"num_samples": 3}], 1500)
        assert len(few[0]) == 3


def test_streaming_needs_to_know_how_many_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)nothing says how many rows are needed.*training\.max_steps"):
        open_source(DataSettings(source="someone/rows", streaming=True), cache=tmp_path)
