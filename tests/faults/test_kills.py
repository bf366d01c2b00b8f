"""A run that is killed at random moments ends as one that was left alone, whatever is killed and when."""

from pathlib import Path

import pytest

from lft.core.settings import Strategy
from tests.faults.kills import STRATEGIES, TOKEN, make_material, tell
from tests.local_hub import LocalHub


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("strategy", "ranks", "kills"),
    [
        ("ddp", 2, 4),
        *(pytest.param(each, 1 if each == "single" else 3, 10, marks=pytest.mark.long) for each in STRATEGIES),
    ],
)
def test_a_run_killed_at_random_moments_ends_bit_for_bit_as_one_left_alone(
    strategy: Strategy, ranks: int, kills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_material(tmp_path)
    with LocalHub({TOKEN: "tests"}) as hub:
        for name, value in hub.environment(tmp_path / "home", TOKEN).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        story = tell(strategy, ranks, kills, 7, tmp_path, hub)
    assert story.wrong == []
    assert len(story.kills) == kills
    assert any(not kill.missed for kill in story.kills)
