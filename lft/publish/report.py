"""report.json: the numbers of a run, for people's tables, for scripts and for the model card."""

import json
import platform
import time
from importlib import metadata
from typing import Any

from lft.core.files import write_text
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings

Report = dict[str, Any]
PACKAGES = ("lft", "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers")


def make_report(
    settings: RunSettings,
    training: list[dict[str, Any]],
    benchmark: list[dict[str, Any]],
    predicted_memory_bytes: int | None = None,
) -> Report:
    """Put together what the ranks measured (rank 0 first). Missing parts are null.

    The plan's prediction, for each rank, stands beside the measured peaks.
    """
    report: Report = {
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version()} | {name: metadata.version(name) for name in PACKAGES},
        "settings": settings.model_dump(mode="json"),
        "training": None,
        "benchmark": benchmark[0].get("benchmark") if benchmark else None,
    }
    if training:
        peaks = [rank["peak_memory_bytes"] for rank in training]
        report["training"] = {**training[0], "peak_memory_bytes_by_rank": peaks}
        report["training"]["predicted_memory_bytes"] = predicted_memory_bytes
    return report


def write_report(run_dir: RunDir, report: Report) -> None:
    """Write run/report.json."""
    write_text(run_dir.report, json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def read_report(run_dir: RunDir) -> Report | None:
    """A run's report; None where there is none."""
    try:
        report: Report = json.loads(run_dir.report.read_bytes())
    except (OSError, ValueError):
        return None
    return report
