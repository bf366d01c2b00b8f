"""A stop before the time limit begins early enough to finish a step and save, and leaves short jobs most of their time."""

import time
from pathlib import Path

import pytest

from lft.core.events import Event, EventWriter
from lft.launch import time_limit
from lft.launch.time_limit import TimeLimit, lead_seconds, p95


def test_the_lead_is_two_slow_steps_a_slow_save_and_a_minute() -> None:
    assert lead_seconds([10.0] * 19 + [100.0], [30.0], 1e6) == 2 * 10 + 30 + 60
    assert lead_seconds([10.0] * 9 + [100.0], [30.0], 1e6) == 2 * 100 + 30 + 60


def test_the_lead_takes_at_most_a_quarter_of_a_short_job() -> None:
    assert lead_seconds([], [], 60.0) == 15.0
    assert lead_seconds([1.0], [1.0], 120.0) == 30.0


def test_ninety_five_percent_of_values_do_not_exceed_the_p95() -> None:
    assert p95([]) == 0.0
    assert p95([3.0]) == 3.0
    assert p95([float(number) for number in range(1, 101)]) == 95.0


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | None]:
    """When SLURM says that the job ends."""
    told: dict[str, float | None] = {"at": None}
    monkeypatch.setattr(time_limit, "end_time", lambda job_id: told["at"])
    return told


def test_steps_and_saves_are_learned_apart_also_from_earlier_lives(
    tmp_path: Path, ends: dict[str, float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 104.0, 106.0, 113.0])
    monkeypatch.setattr(time, "time", lambda: next(times, 200.0))
    writer = EventWriter(tmp_path / "rank-0.jsonl")
    writer.write("step", step=1, total=9, seconds=0.0)
    writer.write("step", step=3, total=9, seconds=0.0)
    writer.write("saved", step=3)
    writer.write("step", step=4, total=9, seconds=0.0)
    writer.close()
    limit = TimeLimit("1", tmp_path / "rank-0.jsonl")
    assert (limit.step_seconds, limit.save_seconds) == ([2.0], [2.0])
    limit.note(Event("rank-0", "step", {"step": 5}, 116.0))
    assert limit.step_seconds == [2.0, 3.0]


def test_the_time_to_stop_follows_the_end_that_slurm_tells(tmp_path: Path, ends: dict[str, float | None]) -> None:
    limit = TimeLimit("1", tmp_path / "none.jsonl")
    assert not limit.is_near()
    limit.ends_at = time.time() + 1000
    assert limit.lead_seconds == 60
    assert not limit.is_near()
    limit.ends_at = time.time() + 0.001
    assert limit.is_near() or limit.ends_at > time.time()
