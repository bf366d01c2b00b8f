"""What the page of a run shows, in words and in parts of a width: key figures, memory, data, settings, how to go on. Pure."""

import json
import shlex
import time
from dataclasses import dataclass
from typing import Any

from lft.core.run_dir import RunDir
from lft.core.section import Section
from lft.core.settings import RunSettings
from lft.core.words import about, clock, counted, percent, rounded
from lft.publish.chart import figure
from lft.publish.metrics import metric, shown_metrics, verdict
from lft.publish.run_facts import AttemptFacts, RunFacts
from lft.publish.scores import signed

HEADLINE = ("rougeL", "loss")
"""The metrics that come first."""
MOST_BARS = 4
"""Ranks whose memory is shown; of more, the one that needed most."""
TOGETHER = {"adapters": "adapter, its gradients and optimizer", "gradients": "adapters", "optimizer": "adapters"}


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """A number at the top of the page."""

    label: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A stacked bar: start and width of each piece in parts of the width, and its colour."""

    label: str
    words: str
    pieces: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True, slots=True)
class MemoryPicture:
    """Predicted beside measured, and what the prediction is made of."""

    bars: tuple[Bar, ...]
    parts: tuple[tuple[str, str, int], ...]
    """Name, size and colour."""


def key_figures(facts: RunFacts) -> list[KeyFigure]:
    """At most six, the proof that it helped first."""
    training, benchmark = facts.report["training"] or {}, facts.report["benchmark"]
    return [*_scores(benchmark), *_loss(facts, bool(benchmark)), *_steps(facts, training), *_cost(facts, training)][:6]


def _scores(benchmark: dict[str, Any] | None) -> list[KeyFigure]:
    if not benchmark:
        return []
    shown = shown_metrics(benchmark)
    first = [name for name in HEADLINE if name in shown] or shown
    return [
        KeyFigure(
            metric(name).label,
            figure(benchmark["tuned"][name]),
            f"{figure(benchmark['base'][name])} before, {verdict(name, benchmark['difference'][name])}",
        )
        for name in first[:2]
    ]


def _loss(facts: RunFacts, has_benchmark: bool) -> list[KeyFigure]:
    """Of a run that has no benchmark to show."""
    history = facts.history
    points = history.held_out_losses or history.losses
    if has_benchmark or not points:
        return []
    name = "held-out loss" if history.held_out_losses else "training loss"
    return [KeyFigure(name, figure(points[-1][1]), f"{figure(points[0][1])} at step {points[0][0]:,}")]


def _steps(facts: RunFacts, training: dict[str, Any]) -> list[KeyFigure]:
    history = facts.history
    done = training.get("steps", history.step)
    if not done and history.total is None:
        return []
    of = f" of {history.total:,}" if history.total is not None and history.total != done else ""
    took = f"in {clock(history.seconds)}" if history.seconds else ""
    on = f"on {counted(len(training['peak_memory_bytes_by_rank']), 'rank')}" if training else ""
    return [KeyFigure("steps", f"{done:,}{of}", " ".join(filter(None, (took, on))))]


def _cost(facts: RunFacts, training: dict[str, Any]) -> list[KeyFigure]:
    """Speed, memory, and how much is trained."""
    found = []
    speed = training.get("tokens_per_second")
    if speed is None and facts.history.speeds:
        speed = facts.history.speeds[-1][1]
    if speed is not None:
        shares = (("padding", training.get("padding")), ("MFU", training.get("mfu")))
        note = ", ".join(f"{percent(share, 1)} {name}" for name, share in shares if share is not None)
        found.append(KeyFigure("tokens a second", about(speed), note))
    peaks, predicted = training.get("peak_memory_bytes_by_rank"), sum(facts.memory_bytes.values())
    if peaks:
        note = f"{predicted / 1e9:.1f} GB predicted" if predicted else "of a rank"
        found.append(KeyFigure("peak memory", f"{max(peaks) / 1e9:.1f} GB", note))
    if training.get("parameters"):
        of = f"of {rounded(training['parameters'])}"
        found.append(KeyFigure("parameters trained", rounded(training["trainable_parameters"]), of))
    return found


def memory_picture(facts: RunFacts) -> MemoryPicture | None:
    """None where nothing was predicted."""
    sizes: dict[str, int] = {}
    for name, size in facts.memory_bytes.items():
        together = "adapters" if TOGETHER.get(name) == "adapters" else name
        sizes[together] = sizes.get(together, 0) + size
    if not sizes:
        return None
    peaks: list[int] = (facts.report["training"] or {}).get("peak_memory_bytes_by_rank", [])
    widest = max(sum(sizes.values()), *peaks, 1)
    pieces, start = [], 0.0
    for number, size in enumerate(sizes.values()):
        pieces.append((start, size / widest, number))
        start += size / widest
    bars = [Bar("predicted", _gigabytes(sum(sizes.values())), tuple(pieces))]
    shown = list(enumerate(peaks)) if len(peaks) <= MOST_BARS else [max(enumerate(peaks), key=lambda each: each[1])]
    bars += [Bar(f"measured, rank {rank}", _gigabytes(peak), ((0.0, peak / widest, -1),)) for rank, peak in shown]
    names = {"adapters": TOGETHER["adapters"], "framework": "libraries", "loading": "loading, beyond the rest"}
    parts = tuple(
        (names.get(name, name), _gigabytes(size), number) for number, (name, size) in enumerate(sizes.items())
    )
    return MemoryPicture(tuple(bars), parts)


def _gigabytes(size_bytes: int) -> str:
    """Two digits behind the point below 10 GB, one above."""
    return f"{size_bytes / 1e9:.{2 if size_bytes < 1e10 else 1}f} GB"


def data_rows(audit: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The label audit: what, how much, and what that means; oddities only where there are any."""
    rows, tokens, trained = audit["rows"], audit["tokens"], audit["trained"]
    always = [
        ("rows to train on", f"{rows:,}", ""),
        ("rows held out", f"{audit['held_out']:,}", ""),
        ("tokens", f"{tokens:,}", f"{about(tokens / rows)} a row" if rows else ""),
        ("tokens trained", f"{trained:,}", f"{percent(trained, tokens)} of them: they have a label"),
        ("max_length that 99 % of the rows fit into", f"{audit['length_for_most']:,}", ""),
    ]
    odd = (
        ("cut", "rows cut", "longer than max_length"),
        ("masked", "rows without any trained token", "they teach nothing"),
        ("whole_without_end", "whole rows without a trained end", "the model is not taught to stop there"),
        ("begin_doubled", "rows with two begin tokens", ""),
        ("duplicates", "duplicate rows", ""),
        ("shared_prompts", "held-out prompts in training too", "with another answer"),
        ("leaked", "held-out rows in training too", ""),
        ("empty", "rows left out as empty", ""),
        ("bad", "rows left out as unreadable", ""),
    )
    return always + [(name, f"{audit[key]:,}", note) for key, name, note in odd if audit[key]]


def changed_settings(settings: RunSettings) -> list[tuple[str, str, str]]:
    """Name, value and default of what was asked for and is not the default; those without default come with none."""
    found = []
    for section, content in settings:
        for name, field in type(content).model_fields.items() if isinstance(content, Section) else ():
            value = getattr(content, name)
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            if field.is_required() or value != default:
                found.append((f"{section}.{name}", typed(value), "" if field.is_required() else typed(default)))
    return found


def typed(value: object) -> str:
    """A setting as a run file has it."""
    if value is None or isinstance(value, str):
        return "not set" if value is None else value
    if isinstance(value, tuple):
        return ", ".join(typed(each) for each in value) or "none"
    if isinstance(value, Section):
        return ", ".join(f"{name}: {typed(each)}" for name, each in value)
    return json.dumps(value, default=str)


def attempt_times(attempt: AttemptFacts) -> tuple[str, str]:
    """When it began, in UTC, and how long it took."""
    took = clock(attempt.ended - attempt.began) if attempt.began and attempt.ended else ""
    return (utc(attempt.began) if attempt.began else "", took)


def utc(seconds: float) -> str:
    """`2026-11-28 11:52 UTC`."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def commands(facts: RunFacts) -> list[tuple[str, str]]:
    """What to type, and what for."""
    if facts.again:
        return [("compares base and tuned model again", facts.again)]
    folder = str(facts.output_dir)
    settings = str(RunDir(facts.output_dir).settings)
    found = [("repeats the run", shlex.join(["lft", "launch", settings, "--output-dir", f"{folder}-again"]))]
    if facts.report["training"]:
        found.append(("asks it, beside the base", shlex.join(["lft", "generate", folder, "PROMPT", "--compare"])))
        found.append(("compares base and tuned model again", shlex.join(["lft", "benchmark", folder])))
        found.append(("shares the adapter", shlex.join(["lft", "upload", folder, "--repo-name", "USER/NAME"])))
    else:
        found.append(("goes on with it", shlex.join(["lft", "resume", folder])))
    return found


def change_words(benchmark: dict[str, Any], name: str) -> str:
    """`0.341 (+0.129)`."""
    return f"{figure(benchmark['tuned'][name])} ({signed(benchmark['difference'][name]['mean'])})"
