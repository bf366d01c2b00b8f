"""A run's course over its attempts: as an uninterrupted run would have told it."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lft.core.events import EventWriter
from lft.publish.chart import few, labels, make_chart, nice_numbers
from lft.publish.history import History, history_of, read_history
from lft.publish.loss_picture import write_loss_picture
from lft.publish.scores import score_groups, signed
from tests.publish.made_up_run import BENCHMARK

STEP = {"trained_tokens": 0, "places": 0}


def attempt(first: int, last: int, loss: float, total: int = 10) -> list[dict[str, Any]]:
    """The events of steps `first` to `last`, at 100 tokens and 2 seconds a step."""
    found: list[tuple[str, dict[str, Any]]] = [("total", {"steps": total})]
    for step in range(first, last + 1):
        found.append(("step", {"step": step, "seconds": 2.0 * (step - first), "tokens": 100 * (step - first)} | STEP))
        if step > first:
            found.append(("log", {"step": step, "loss": loss, "learning_rate": 1e-4}))
    return [{"kind": kind, "data": data} for kind, data in found]


def test_steps_made_again_after_an_interruption_count_once_the_last_time() -> None:
    history = history_of([*attempt(0, 6, 3.0), *attempt(4, 10, 2.0)])
    assert history.losses == [(step, 3.0 if step <= 4 else 2.0) for step in range(1, 11)]
    assert history.resumed_at == [4]
    assert (history.step, history.total, history.seconds) == (10, 10, 24.0)
    assert history.speeds == [(step, 50.0) for step in range(1, 11)]


def test_a_run_that_began_anew_forgets_what_was_before() -> None:
    history = history_of([*attempt(0, 6, 3.0), *attempt(4, 5, 2.5), *attempt(0, 2, 2.0)])
    assert history.losses == [(1, 2.0), (2, 2.0)]
    assert history.resumed_at == []


def test_a_step_that_several_attempts_go_on_from_is_marked_once() -> None:
    assert history_of([*attempt(0, 6, 3.0), *attempt(4, 5, 2.5), *attempt(4, 8, 2.0)]).resumed_at == [4]


def test_half_a_line_at_the_end_and_events_of_another_run_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "rank-0.jsonl"
    writer = EventWriter(path)
    writer.write("log", step=1, loss=2.0, learning_rate=0.1)
    writer.close()
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"writer": "rank-0", "kind": "lo')
    assert read_history(path).losses == [(1, 2.0)]
    assert read_history(path, began=4e9).losses == []
    assert read_history(tmp_path / "none.jsonl") == History()


def test_long_lines_are_drawn_with_few_points_that_keep_every_peak() -> None:
    points = [(float(step), 1.0) for step in range(100_000)]
    points[77_777] = (77_777.0, 9.0)
    points[33_333] = (33_333.0, -9.0)
    kept = few(points, 400)
    assert len(kept) <= 402
    assert {points[0], points[-1], points[77_777], points[33_333]} <= set(kept)
    assert kept == sorted(kept)


def test_a_moving_average_does_not_lag_behind_a_falling_loss() -> None:
    chart = make_chart("Loss", [("loss", [(step, 100.0 - step) for step in range(100)])], smooth=True)
    assert chart is not None
    faint, smooth = chart.lines
    assert faint.is_faint
    assert smooth.pieces[0] == tuple(pytest.approx(point, abs=0.006) for point in faint.pieces[0])


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (2.61, 4.38, ["2.5", "3.0", "3.5", "4.0", "4.5"]),
        (0.0, 2e-4, ["0", "5e-5", "1e-4", "1.5e-4", "2e-4"]),
        (0.0, 48_000.0, ["0", "10,000", "20,000", "30,000", "40,000", "50,000"]),
        (-0.03, 0.12, ["-0.05", "0.00", "0.05", "0.10", "0.15"]),
    ],
)
def test_ticks_are_round_numbers_around_what_was_measured(low: float, high: float, words: list[str]) -> None:
    assert labels(nice_numbers(low, high)) == words


def test_a_loss_that_is_not_finite_leaves_a_gap_and_is_told() -> None:
    points = [(1, 3.0), (2, math.nan), (3, 2.0), (4, 1.0)]
    chart = make_chart("Loss", [("loss", points)])
    assert chart is not None
    assert [len(piece) for piece in chart.lines[0].pieces] == [1, 2]
    assert "1 not finite" in chart.summary
    assert make_chart("Loss", [("loss", [(1, math.inf)])]) is None


def test_the_ends_of_an_interval_have_the_digits_of_what_lies_between() -> None:
    assert [signed(0.0004, beside=-0.026), signed(-0.0004), signed(0.121)] == ["+0.000", "\u22120.0004", "+0.121"]


def test_every_interval_lies_on_the_scale_of_its_group() -> None:
    groups = score_groups(BENCHMARK)
    assert [[row.label for row in group.rows] for group in groups] == [
        ["ROUGE-1", "ROUGE-2", "ROUGE-L", "exact match"],
        ["held-out loss"],
        ["perplexity"],
    ]
    for group in groups:
        for row in group.rows:
            assert row.interval is not None
            assert 0 <= row.interval.low < row.interval.mean < row.interval.high <= 1
    assert groups[0].rows[3].interval.low < groups[0].zero < groups[0].rows[3].interval.high  # type: ignore[union-attr]
    assert groups[1].rows[0].interval.high < groups[1].zero  # type: ignore[union-attr]


def test_the_loss_picture_has_ink_where_the_losses_are_and_is_the_same_each_time(tmp_path: Path) -> None:
    history = History(losses=[(step, 5.0 - step / 20) for step in range(1, 81)], held_out_losses=[(40, 3.2), (80, 1.2)])
    for name in ("one.png", "two.png"):
        write_loss_picture(tmp_path / name, history)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.png").stat().st_size < 60_000
    with Image.open(tmp_path / "one.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (720, 1440, 3)
    rows, columns = np.nonzero(pixels[110:, :, 2] > pixels[110:, :, 0] + 100)  # blue, below the legend
    assert rows[columns.argmin()] < 40
    assert rows[columns.argmax()] > 480


def test_without_losses_there_is_no_picture(tmp_path: Path) -> None:
    write_loss_picture(tmp_path / "loss.png", History())
    assert not (tmp_path / "loss.png").exists()
