"""Rows that the tests of real ranks train on."""

from pathlib import Path

import pytest

from tests.conftest import demo_lines


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 rows: with 3 held out, 57 to train on, which neither ranks nor micro-batches divide."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(demo_lines(60)), encoding="utf-8")
    return path
