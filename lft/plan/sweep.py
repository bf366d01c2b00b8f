"""A sweep: the runs that lists of values make, each with a name to read. Pure."""

import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

Changes = Mapping[str, Any]
"""The settings of one run that the sweep sets, by their dotted names."""
LONGEST_NAME = 100
"""Characters of a run's folder; a longer one is cut, and numbered."""
_THE_SAME = ("output_dir", "sweep", "slurm", "launch.nodes", "launch.gpus", "launch.cpu_procs", "upload.repo_name")


def expand(sweep: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values, the last setting changing fastest."""
    return [dict(zip(sweep, values, strict=True)) for values in product(*sweep.values())]


def cannot_be_swept(sweep: Mapping[str, Sequence[Any]]) -> list[str]:
    """Settings that must be the same for all runs, and values that stand twice."""
    mistakes = [
        f"sweep.{key}  is the same for all runs of a sweep"
        for key in sweep
        if any(key == name or key.startswith(f"{name}.") for name in _THE_SAME)
    ]
    return mistakes + [
        f"sweep.{key}  has {value!r} twice"
        for key, values in sweep.items()
        for place, value in enumerate(values)
        if value in values[:place]
    ]


def run_names(runs: Sequence[Changes]) -> list[str]:
    """A folder for each run: `r-8_learning_rate-0.0001`; the section's name too where two settings end alike."""
    keys = list(runs[0]) if runs else []
    ends = [key.rpartition(".")[2] for key in keys]
    called = {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}
    names = ["_".join(f"{called[key]}-{_word(value)}" for key, value in run.items())[:LONGEST_NAME] for run in runs]
    return [
        name if names.count(name) == 1 and not name.isdigit() else f"{name}-{number}"
        for number, name in enumerate(names)
    ]


def _word(value: Any) -> str:
    """A value as part of a folder's name."""
    if isinstance(value, Mapping):
        return "+".join(f"{key}-{_word(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return "+".join(map(_word, value))
    text = str(value).lower() if isinstance(value, bool) or value is None else str(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")
