"""Run files as they are written for people: whatever a value holds, it is read back."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lft.core.run_file_text import Entry, nested, run_file_text, scalar
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings

HOSTILE = [
    "a: b",
    'it\'s "quoted"',
    "# no comment",
    "a #b",
    "  spaces around  ",
    "- dash",
    "yes",
    "0123",
    "1e3",
    "2026-02-31",
    "null",
    "[a, b]",
    "{a: b}",
    "&a *b !c",
    "%x @y `z",
    "\u00fcber/\u6a21\u578b \U0001f600",
    "line\nfeed\tand tab\r\n",
    "\x7f\x85\u2028\ufeff",
    "x" * 5000,
    "{{ message }}{% if a %}\n  'b'\n{% endif %}",
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


def read_back(folder: Path, entries: dict[str, Any], comment: str = "") -> RunSettings:
    """What the reader makes of the file."""
    path = folder / "run.yaml"
    path.write_text(
        run_file_text({name: Entry(value, comment) for name, value in entries.items()}, "A\n\nB"), encoding="utf-8"
    )
    return read_settings(path, {}, ())


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_hostile_values_and_comments_are_read_back_as_they_were(value: str, tmp_path: Path) -> None:
    entries = {
        "model.name": "a/b",
        "data.source": "c/d",
        "data.completion_template": value,
        "data.text_columns": [value, "b"],
    }
    settings = read_back(tmp_path, entries, comment=value)
    assert settings == RunSettings.model_validate(nested(entries))
    assert settings.data.completion_template == value


@given(TEXTS)
def test_any_text_stands_on_one_line_and_is_read_back(value: str) -> None:
    line = f"key: {scalar(value)}  # {' '.join(value.split())}"
    assert "\n" not in line.split("  # ")[0]
    assert yaml.safe_load(f"key: {scalar(value)}") == {"key": value}


def test_every_setting_can_be_written_and_is_read_back(tmp_path: Path) -> None:
    settings = RunSettings.model_validate({"model": {"name": "a/b"}, "data": {"source": "c/d"}, "output_dir": tmp_path})
    entries = settings.by_name() | {"output_dir": str(tmp_path)}
    assert read_back(tmp_path, entries) == settings


def test_each_key_has_its_comment_and_the_order_of_the_reference(tmp_path: Path) -> None:
    entries = {"training.num_epochs": Entry(2), "model.name": Entry("a/b", "why\nnot"), "output_dir": Entry("out")}
    assert run_file_text(entries, "Head") == (
        "# Head\n"
        "\nmodel:\n  name: a/b                         # why not\n"
        "\ntraining:\n  num_epochs: 2                     # passes over the training rows\n"
        "\noutput_dir: out                     # folder of the adapter\n"
    )
