"""Real data sets, each in another format, are prepared, inspected and trained on."""

from pathlib import Path

import pytest

from benchmarks.real_sets import SETS, fetch, make_set, try_set
from tests.conftest import TinyModels

LIMIT = 400


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages that carry the sets; 90 MB to fetch."""
    return fetch(tmp_path_factory.mktemp("packages"))


@pytest.mark.long
@pytest.mark.parametrize("name", SETS)
def test_a_real_set_is_kept_whole_has_trained_answers_and_trains(
    name: str, packages: Path, tmp_path: Path, tiny_models: TinyModels
) -> None:
    tried = try_set(make_set(name, packages, tmp_path, LIMIT), steps=3, model=str(tiny_models.llama))
    audit = tried.inspected["audit"]
    assert tried.inspected["rows"] == LIMIT
    assert tried.inspected["kept"] + audit["empty"] == LIMIT, "rows that nothing is trained of are kept, and marked"
    assert audit["rows"] + audit["held_out"] + audit["masked"] + audit["empty"] == LIMIT
    assert audit["bad"] == audit["leaked"] == audit["begin_doubled"] == audit["whole_without_end"] == 0
    assert 0 < audit["trained"] < audit["tokens"]
    assert len(tried.losses) == 3
    assert all(0 < loss < 20 for loss in tried.losses)
