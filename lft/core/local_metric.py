"""Metrics of the `evaluate` kind on this machine: their scripts, and what is wrong with one before anything is loaded.

`evaluate.load("bleu")` fetches a script from the Hub at run time, which is too late to fail; a script that is here is named
by its path.
"""

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from lft.core.paths import expanded, missing_path
from lft.core.section import absolute

ROUGE = "rouge"
"""The one metric that is built in."""


def _absolute_but_rouge(name: str) -> str:
    return name if name == ROUGE else str(absolute(Path(name)))


MetricName = Annotated[str, Field(min_length=1), AfterValidator(_absolute_but_rouge)]


def metric_script(name: str) -> Path:
    """The script of a metric: the file itself, or that of the same name in a folder."""
    path = expanded(name)
    return path / f"{path.name}.py" if path.is_dir() else path


def metric_mistakes(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Pairs of setting and what is wrong with it, for the metrics that a run file names."""
    section = values.get("benchmark")
    names = section.get("metrics") if isinstance(section, Mapping) else None
    for number, name in enumerate(names if isinstance(names, list | tuple) else ()):
        problem = metric_problem(name) if isinstance(name, str) and name else None
        if problem:
            yield f"benchmark.metrics.{number}", problem


def metric_problem(name: str) -> str | None:
    """Why a metric cannot be loaded, or None. Nothing of it is run."""
    if name == ROUGE:
        return None
    script = metric_script(name)
    if not expanded(name).exists():
        if "/" in name or name.endswith(".py"):
            return missing_path(name)
        return f"{name} is on the Hub, if anywhere; rouge or the path of a metric's script on this machine is expected"
    if not script.is_file():
        return f"{name} holds no {script.name}, which would be the metric's script"
    if script.suffix != ".py":
        return f"{name} is no Python script; the script of an `evaluate` metric is expected"
    try:
        tree = ast.parse(script.read_bytes())
    except OSError as error:
        return f"{script} cannot be read: {error.strerror}"
    except (SyntaxError, ValueError) as error:
        return f"{script}:{getattr(error, 'lineno', 0) or 1} is no Python: {getattr(error, 'msg', error)}"
    if not any(isinstance(node, ast.ClassDef) for node in tree.body):
        return f"{script} holds no class; one derived from evaluate.Metric is expected"
    missing = sorted({package for package in _imported(tree) if importlib.util.find_spec(package) is None})
    if missing:
        return f"{script} imports {', '.join(missing)}, which this Python has not: pip install {' '.join(missing)}"
    return None


def _imported(tree: ast.Module) -> Iterator[str]:
    """The packages a script imports at its top; files beside it are imported as `from .name import ...`."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
