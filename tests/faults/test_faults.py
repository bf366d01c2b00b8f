"""Nothing hangs, nothing is left behind, and the error one reads is the one that happened: real runs, really harmed."""

from pathlib import Path

import pytest

from lft.core.checkpoints import complete
from tests.conftest import TinyModels, demo_lines
from tests.faults.faults import faulty_model
from tests.faults.scenarios import SCENARIOS, Scenario, play


@pytest.fixture(scope="module")
def model(tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama with a fault in it."""
    return faulty_model(tiny_models.llama, tmp_path_factory.mktemp("faulty") / "model")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_fault_ends_the_run_with_its_cause_and_leaves_no_process(
    scenario: Scenario, model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(demo_lines(60)) + "\n", encoding="utf-8")
    run = play(scenario, model, data, tmp_path)
    assert run.exit_code == scenario.exit_code, run.text
    place = 0
    for words in scenario.says:
        assert words in run.text[place:], run.text
        place = run.text.index(words, place)
    assert run.left == []
    if "is saved" in run.text:
        newest = complete(run.run_dir.output_dir)[-1].name
        assert f"{newest} is saved" in run.text
        assert not run.run_dir.adapter_config.exists(), "an unfinished adapter is not the final one"
