"""The metadata at the top of a card, and whether it has the form that the Hub wants.

After https://github.com/huggingface/hub-docs/blob/main/modelcard.md. Not covered: lists of the licenses, metrics and
languages there are.
"""

import re
from collections.abc import Iterator
from typing import Any

import yaml

TEXTS = ("license", "license_name", "license_link", "pipeline_tag", "library_name", "base_model_relation")
LISTS = ("tags", "datasets", "metrics")
REPOSITORY = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")


def metadata_of(card: str) -> dict[str, Any] | None:
    """The metadata of a card; None where it has none that can be read."""
    found = _block(card)
    try:
        values = yaml.safe_load(found) if found is not None else None
    except yaml.YAMLError:
        return None
    return values if isinstance(values, dict) else None


def metadata_errors(card: str) -> list[str]:
    """What the Hub would not take, in words; a card without metadata is fine."""
    found = _block(card)
    try:
        values = yaml.safe_load(found) if found is not None else {}
    except yaml.YAMLError as error:
        return [f"error while parsing the YAML: {error}"]
    if not isinstance(values, dict):
        return ["the metadata is no mapping"]
    return list(_errors(values))


def _block(card: str) -> str | None:
    match = re.match(r"---[ \t]*\n(.*?)\n---[ \t]*(\n|$)", card, re.DOTALL)
    return match[1] if match else None


def _errors(values: dict[str, Any]) -> Iterator[str]:
    for key in TEXTS:
        if key in values and not isinstance(values[key], str):
            yield f'"{key}" must be a string'
    for key in LISTS:
        if key in values and not _are_texts(values[key]):
            yield f'"{key}" must be an array of strings'
    names = values.get("base_model", [])
    for name in names if isinstance(names, list) else [names]:
        if not REPOSITORY.fullmatch(str(name)):
            yield f'"base_model" with value "{name}" is not valid'
    for name in values.get("datasets", []) or []:
        if not REPOSITORY.fullmatch(str(name)):
            yield f'"datasets" with value "{name}" is not valid'
    for number, model in enumerate(values.get("model-index", [])):
        yield from (f'"model-index[{number}]" {what}' for what in _model_errors(model))


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _model_errors(model: dict[str, Any]) -> Iterator[str]:
    if not isinstance(model.get("name"), str) or not model["name"]:
        yield "has no name"
    for result in model.get("results", []):
        if not isinstance(result.get("task", {}).get("type"), str):
            yield "has a result without task.type"
        data = result.get("dataset", {})
        if not all(isinstance(data.get(key), str) for key in ("type", "name")):
            yield "has a result without dataset.type or dataset.name"
        metrics = result.get("metrics", [])
        if not metrics or not all(isinstance(each.get("type"), str) and "value" in each for each in metrics):
            yield "has a metric without type or value"
