"""report.html: a run, or several side by side, as one file that needs nothing else. The look of it is in templates/."""

from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lft.core.files import write_text
from lft.core.paths import looks_local
from lft.core.run_dir import RunDir
from lft.core.settings_file import to_yaml
from lft.publish.card import Adapter
from lft.publish.card_usage import usage_here
from lft.publish.chart import Chart, Tick, make_chart
from lft.publish.comparison import Comparison
from lft.publish.loss_picture import loss_chart
from lft.publish.page_parts import (
    attempt_times,
    changed_settings,
    commands,
    data_rows,
    key_figures,
    memory_picture,
)
from lft.publish.run_facts import RunFacts
from lft.publish.scores import score_groups

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
SAMPLES_SHOWN = 4
"""Answers shown at once; the others are folded away."""


def write_report_page(path: Path, facts: RunFacts) -> None:
    """Write the page of a run. Raises OSError."""
    write_text(path, report_page(facts))


def write_comparison_page(path: Path, comparison: Comparison) -> None:
    """Write the page that shows several runs side by side. Raises OSError."""
    write_text(
        path, TEMPLATES.get_template("comparison.html").render(compared=comparison, version=metadata.version("lft"))
    )


def report_page(facts: RunFacts) -> str:
    """The page of a run; parts of which nothing is known are left out."""
    training, benchmark = facts.report["training"], facts.report["benchmark"]
    run_dir = RunDir(facts.output_dir)
    parts: dict[str, Any] = {
        "model": _short(facts.settings.model.name),
        "data": ", ".join(map(_short, facts.settings.data.source_names)),
        "figures": key_figures(facts),
        "scores": score_groups(benchmark) if benchmark else [],
        "samples": (benchmark or {}).get("samples", []),
        "samples_shown": SAMPLES_SHOWN,
        "charts": _charts(facts),
        "memory": memory_picture(facts),
        "audit": (training or {}).get("data"),
        "data_rows": data_rows(training["data"]) if training and training.get("data") else [],
        "attempts": [(attempt, *attempt_times(attempt)) for attempt in facts.attempts],
        "changed": changed_settings(facts.settings),
        "run_file": to_yaml(facts.settings),
        "use": usage_here(facts.output_dir, Adapter.in_folder(facts.output_dir).style) if training else "",
        "commands": commands(facts),
        "files": _files(run_dir),
    }
    sections = _sections(parts)
    return TEMPLATES.get_template("report.html").render(facts=facts, report=facts.report, sections=sections, **parts)


def _charts(facts: RunFacts) -> list[Chart]:
    """Those of which anything was measured, the loss first."""
    history = facts.history
    marks = [Tick(step, f"went on from step {step:,}") for step in history.resumed_at]
    loss = loss_chart(history, marks)
    rate = make_chart("Learning rate", [("learning rate", history.learning_rates)], from_zero=True, marks=marks)
    note = "With the time for held-out losses and checkpoints."
    speed = make_chart("Tokens a second", [("tokens a second", history.speeds)], from_zero=True, marks=marks, note=note)
    return [chart for chart in (loss, rate, speed) if chart]


def _sections(parts: dict[str, Any]) -> list[tuple[str, str]]:
    """Anchor and title of each part that is there, in their order."""
    known = (
        ("results", "Results", parts["scores"]),
        ("answers", "Answers", parts["samples"]),
        ("training", "Training", parts["charts"] or parts["memory"]),
        ("data", "Data", parts["data_rows"]),
        ("plan", "Plan", True),
        ("attempts", "Attempts", True),
        ("settings", "Settings", True),
        ("next", "Use and repeat", True),
        ("versions", "Versions and files", True),
    )
    return [(anchor, title) for anchor, title, is_there in known if is_there]


def _short(name: str) -> str:
    """A Hub name as it is, and the last part of a path."""
    return Path(name).name if looks_local(name) else name


def _files(run_dir: RunDir) -> list[tuple[str, str]]:
    """What lies where."""
    return [
        ("adapter and tokenizer", str(run_dir.output_dir)),
        ("the run in numbers", str(run_dir.report)),
        ("settings, a run file", str(run_dir.settings)),
        ("plan", str(run_dir.plan)),
        ("logs of the newest attempt", str(run_dir.attempts()[-1].folder if run_dir.attempts() else run_dir.run)),
    ]
