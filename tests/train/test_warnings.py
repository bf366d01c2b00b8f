"""Warnings that reach people are those they can do something about, wherever lft is installed."""

import warnings

import pytest

from lft.train.worker import FOR_DEVELOPERS, WARNING


@pytest.mark.parametrize("path", ["/lib/peft/model.py", "/my lft: new/lib/peft/model.py"])
@pytest.mark.parametrize("kind", [FutureWarning, UserWarning])
def test_a_warning_is_told_from_one_for_developers_wherever_its_file_is(path: str, kind: type[Warning]) -> None:
    text = "`a` is deprecated: use `b`"
    found = WARNING.match(warnings.formatwarning(text, kind, path, 3303, "  warnings.warn(").strip())
    assert found is not None
    assert found["text"] == text
    assert (found["kind"] in FOR_DEVELOPERS) == (kind is FutureWarning)


def test_a_line_of_a_log_is_kept_whole() -> None:
    found = WARNING.match("rank 3: 2 rows are cut")
    assert found is not None
    assert (found["kind"], found["text"]) == (None, "rank 3: 2 rows are cut")
