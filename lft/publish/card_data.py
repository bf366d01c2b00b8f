"""The metadata of a card: what the Hub files, filters and compares an adapter by.

The keys: https://github.com/huggingface/hub-docs/blob/main/modelcard.md
"""

import math
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from lft.core.paths import looks_local
from lft.publish.base_model import HUB_NAME, License, is_public
from lft.publish.markdown import one_line
from lft.publish.metrics import metric, shown_metrics

TASK = "text-generation"


def card_data(title: str, base: str, report: dict[str, Any], license: License | None) -> ModelCardData:
    """Metadata of the adapter of `base` that `report` tells of; nothing in it is a path of this machine."""
    results = eval_results(report)
    sources = [name for name in source_names(report) if is_hub_data_set(name)]
    return ModelCardData(
        base_model=base if is_public(base) else None,
        base_model_relation="adapter" if is_public(base) else None,
        library_name="peft",
        pipeline_tag=TASK,
        tags=["lora", "lft"],
        datasets=sources or None,
        metrics=list(dict.fromkeys(each.metric_type for each in results if each.metric_type != "loss")) or None,
        model_name=one_line(title),
        eval_results=results or None,
        license=license.license if license else None,
        license_name=license.license_name if license else None,
        license_link=license.license_link if license else None,
    )


def eval_results(report: dict[str, Any]) -> list[EvalResult]:
    """The tuned model's metrics on the held-out rows; those that are no finite number are left out."""
    benchmark = report.get("benchmark")
    values = {name: benchmark["tuned"][name] for name in shown_metrics(benchmark)} if benchmark else {}
    return [
        EvalResult(
            task_type=TASK,
            metric_type="rouge" if name.startswith("rouge") else one_line(name),
            metric_name=one_line(metric(name).label),
            metric_value=round(value, 4),
            **_measured_on(report),
        )
        for name, value in values.items()
        if math.isfinite(value)
    ]


def _measured_on(report: dict[str, Any]) -> dict[str, Any]:
    names = source_names(report)
    shown = ", ".join(shown_source(name) for name in names) or "the data"
    if len(names) == 1 and is_hub_data_set(names[0]):
        data = report["settings"]["data"]
        facts = {f"dataset_{key}": data.get(key) for key in ("config", "split", "revision")}
        return facts | {"dataset_type": names[0], "dataset_name": f"held-out rows of {shown}"}
    return {"dataset_type": "held-out", "dataset_name": f"held-out rows of {shown}"}


def source_names(report: dict[str, Any]) -> list[str]:
    """All sources of the data, as they were named."""
    source = (report.get("settings") or {}).get("data", {}).get("source") or []
    return [source] if isinstance(source, str) else [each["source"] for each in source]


def is_hub_data_set(name: str) -> bool:
    """Whether others can have a source from the Hub."""
    return bool(HUB_NAME.fullmatch(name)) and not looks_local(name)


def shown_source(name: str) -> str:
    """A source as others may see it: without the folders of this machine."""
    return one_line(name if is_hub_data_set(name) else Path(name).name)
