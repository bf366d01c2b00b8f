"""loss.png: the losses of a run as a picture for its model card, drawn by Pillow with the font that comes with it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lft.core.files import aside
from lft.publish.chart import Chart, Line, Tick, make_chart
from lft.publish.history import History

WIDTH, HEIGHT = 1440, 720
LEFT, RIGHT, TOP, BOTTOM = 120, 1390, 110, 620
FINER = 3
"""Drawn so many times as large and then made smaller: Pillow draws lines with steps."""
FONT_SIZE = 26
INK, QUIET, GRID, WHITE = "#1b1f24", "#59616b", "#e4e7ea", "#ffffff"
COLOURS = (("#0b62b8", "#a9c9ea"), ("#b4490f", "#ecc4ab"))
"""Of training and held-out loss; the second of each lies behind a moving average."""


def loss_chart(history: History, marks: Sequence[Tick] = ()) -> Chart | None:
    """Training and held-out loss over the steps; None where none is known."""
    measured = (("training loss", history.losses), ("held-out loss", history.held_out_losses))
    return make_chart("Loss", measured, last_step=history.step, smooth=True, marks=marks)


def write_loss_picture(path: Path, history: History) -> None:
    """Write the picture, or nothing where no loss is known; the same losses give the same bytes. Raises OSError."""
    chart = loss_chart(history)
    if chart is not None:
        with aside(path) as temporary:
            draw_chart(chart).save(temporary, format="PNG", optimize=True)


def draw_chart(chart: Chart) -> Image.Image:
    """A picture of WIDTH x HEIGHT pixels on white."""
    picture = Image.new("RGB", (WIDTH * FINER, HEIGHT * FINER), WHITE)
    draw = ImageDraw.Draw(picture)
    for tick in chart.y_ticks:
        _stroke(draw, [(LEFT, _y(tick.at)), (RIGHT, _y(tick.at))], GRID, 2)
    for line in sorted(chart.lines, key=lambda line: not line.is_faint):
        _draw_line(draw, line)
    _write_words(draw, chart)
    return picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS).quantize(128)


def _draw_line(draw: ImageDraw.ImageDraw, line: Line) -> None:
    colour = COLOURS[line.number % len(COLOURS)][line.is_faint]
    for piece in line.pieces:
        _stroke(draw, [(_x(x), _y(y)) for x, y in piece], colour, 3 if line.is_faint else 5)
    for dot in line.dots if line.shows_dots else ():
        _dot(draw, _x(dot.x), _y(dot.y), 7, colour)


def _write_words(draw: ImageDraw.ImageDraw, chart: Chart) -> None:
    write = partial(_write, draw)
    write(LEFT, 50, chart.title, INK, "lm", FONT_SIZE * 1.4)
    for tick in chart.y_ticks:
        write(LEFT - 16, _y(tick.at), tick.label, QUIET, "rm")
    for tick in chart.x_ticks:
        write(_x(tick.at), BOTTOM + 30, tick.label, QUIET, "mm")
    write((LEFT + RIGHT) / 2, BOTTOM + 70, "step", QUIET, "mm")
    right = float(RIGHT)
    for line in reversed([line for line in chart.lines if not line.is_faint]):
        write(right, 50, line.name, INK, "rm")
        right -= draw.textlength(line.name, font=_font(FONT_SIZE)) / FINER + 16
        colour = COLOURS[line.number % len(COLOURS)][0]
        _stroke(draw, [(right - 44, 50), (right, 50)], colour, 5)
        _dot(draw, right - 22, 50, 7, colour)
        right -= 90


def _x(at: float) -> float:
    return LEFT + at * (RIGHT - LEFT)


def _y(at: float) -> float:
    return BOTTOM - at * (BOTTOM - TOP)


def _stroke(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], colour: str, width: int) -> None:
    fine = [(x * FINER, y * FINER) for x, y in points]
    draw.line(fine, fill=colour, width=width * FINER, joint="curve")
    for x, y in points if len(points) > 1 else ():
        _dot(draw, x, y, width / 2, colour)  # round ends and corners


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: str) -> None:
    box = ((x - radius) * FINER, (y - radius) * FINER, (x + radius) * FINER, (y + radius) * FINER)
    draw.ellipse(box, fill=colour)


def _write(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, colour: str, anchor: str, size: float = FONT_SIZE
) -> None:
    draw.text((x * FINER, y * FINER), text, fill=colour, font=_font(size), anchor=anchor)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * FINER)
