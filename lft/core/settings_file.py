"""Reading settings: run file, then flags; every mistake at once, each with its place and what is expected.

YAML is composed first and constructed after, so that each key keeps its line.
"""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lft.core.errors import SettingsError
from lft.core.local_metric import metric_mistakes
from lft.core.paths import input_mistakes
from lft.core.settings import RunSettings, WeightedSource

Key = tuple[str, ...]
DEEPEST_KEY = 4
BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "and below"}
EXAMPLE = "lft launch --model HuggingFaceTB/SmolLM2-135M-Instruct --dataset ./data.jsonl"


def read_settings(run_file: Path | None, flags: Mapping[str, tuple[str, object]], sets: Sequence[str]) -> RunSettings:
    """Settings from `run_file` (if any), then `flags` (dotted key -> flag, value), then `sets` (`section.key=value`).

    Raises SettingsError with every mistake found, each as `place  what is wrong`.
    """
    values, places, mistakes = _read_yaml(run_file) if run_file else ({}, {}, [])
    changes: list[tuple[str, object, str]] = [(key, value, flag) for key, (flag, value) in flags.items()]
    for text in sets:
        key, equals, given = text.partition("=")
        if equals and key.strip():
            changes.append((key.strip(), _parse_scalar(given), f"--set {key.strip()}"))
        else:
            mistakes.append(f"--set {text}  section.key=value is expected, for example lora.r=16")
    for dotted, value, place in changes:
        key_path = tuple(dotted.split("."))
        if _put(values, key_path, value):
            places[key_path] = place
        else:
            mistakes.append(f"{place}  {dotted} cannot be set: {dotted.rpartition('.')[0]} is no section")
    where = run_file.name if run_file else "the command line"
    try:
        settings = RunSettings.model_validate(values)
    except ValidationError as error:
        details = _most_exact(error.errors())
        mistakes += [_explain(detail, values, places, where) for detail in details]
        mistakes += _path_mistakes(values, places, where)
        raise SettingsError(_unique(mistakes), source=where) from None
    mistakes += _path_mistakes(values, places, where)
    if mistakes:
        raise SettingsError(_unique(mistakes), source=where)
    return settings


def to_yaml(settings: RunSettings) -> str:
    """A run file that means exactly these settings, wherever it is read."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[Key, str], list[str]]:
    """Values, the place of each key (`file:line`), and mistakes of form."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError([f"{path}  {error.strerror or error}"], source=str(path)) from None
    except UnicodeDecodeError as error:
        raise SettingsError([f"{path}  is not UTF-8 text (byte {error.start})"], source=path.name) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text) or {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SettingsError([f"{path.name}:{line}  is not YAML: {error.problem}"], source=path.name) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: looks like a date, and is none
        what = " ".join(str(error).split())
        raise SettingsError([f"{path.name}  is not YAML: {what}"], source=path.name) from None
    if not isinstance(values, dict):
        what = (
            f"{path.name}:1  sections with keys are expected (model:, data:, ...), this is one {type(values).__name__}"
        )
        raise SettingsError([what], source=path.name)
    places: dict[Key, str] = {}
    mistakes = _note_places(node, (), path.name, places)
    return values, places, mistakes


def _note_places(node: yaml.Node | None, key: Key, file: str, places: dict[Key, str]) -> list[str]:
    """Fill `places`; a key that stands twice is a mistake, since YAML would silently take the last."""
    mistakes: list[str] = []
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = (*key, str(name.value))
            place = f"{file}:{name.start_mark.line + 1}"
            if inner in places:
                mistakes.append(f"{place}  {'.'.join(inner)} stands twice, first at {places[inner]}")
            places[inner] = place
            if len(inner) < DEEPEST_KEY:  # an alias may make a text that never ends
                mistakes += _note_places(value, inner, file, places)
    elif isinstance(node, yaml.SequenceNode) and len(key) < DEEPEST_KEY:
        for number, value in enumerate(node.value):
            inner = (*key, str(number))
            places[inner] = f"{file}:{value.start_mark.line + 1}"
            mistakes += _note_places(value, inner, file, places)
    return mistakes


def _parse_scalar(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # ValueError: looks like a date, and is none
        return text


def _put(values: dict[str, Any], key: Key, value: object) -> bool:
    """Set a dotted key; False where a part of the way is not a section."""
    for part in key[:-1]:
        if values.get(part) is None:
            values[part] = {}
        values = values[part]
        if not isinstance(values, dict):
            return False
    values[key[-1]] = value
    return True


def _most_exact(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Without those of a whole setting where a part of it is known to be wrong: a list of sources is no text either."""
    keys = {_setting_key(detail["loc"]) for detail in details}
    inner = {key[:length] for key in keys for length in range(1, len(key))}
    return [detail for detail in details if len(key := _setting_key(detail["loc"])) < 2 or key not in inner]


def _explain(detail: ErrorDetails, values: Mapping[str, Any], places: Mapping[Key, str], where: str) -> str:
    """One mistake in the words of the run file."""
    key = _setting_key(detail["loc"])
    place = _place_of(key, places, where)
    name = ".".join(key)
    kind = detail["type"]
    if kind in ("extra_forbidden", "invalid_key"):
        return f"{place}  {name} is not a setting; {_suggestion(key)}"
    if kind == "missing":
        if len(key) == 1:
            name += {"model": ".name", "data": ".source"}[key[0]]
        return f"{place}  {name} is missing; it has no default, for example: {EXAMPLE}"
    given: Any = values
    for part in key:
        if isinstance(given, Mapping):
            given = given.get(part, {})
        elif isinstance(given, list):
            given = given[int(part)]
    shown = "a section" if isinstance(given, Mapping) else json.dumps(given, default=str, ensure_ascii=False)
    return f"{place}  {name} is {shown}; {expectation(key)}"


def _setting_key(location: tuple[int | str, ...]) -> Key:
    """The part of pydantic's location that names a setting, without union branches; a position only in a list of sections."""
    key: list[str] = []
    model: Any = RunSettings
    for part in location:
        key.append(str(part))
        field = model.model_fields.get(part) if isinstance(part, str) else None
        model = field.annotation if field else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            break
    inner = location[len(key) :]
    place = next((place for place, part in enumerate(inner) if isinstance(part, int)), len(inner))
    is_in_section = len(inner) > place + 1  # of a list of sections, as data.source may be
    return (*key, *map(str, inner[place:])) if is_in_section else tuple(key)


def _place_of(key: Key, places: Mapping[Key, str], where: str) -> str:
    """Where the key, or the nearest section around it, was written."""
    while key and key not in places:
        key = key[:-1]
    return places.get(key, where)


def _section_fields(key: Key) -> dict[str, Any]:
    fields: dict[str, Any] = dict(RunSettings.model_fields)
    if key[-1:] and key[-1].isdigit():
        return dict(WeightedSource.model_fields)
    for part in key:
        annotation = fields[part].annotation if part in fields else None
        fields = dict(getattr(annotation, "model_fields", {}))
    return fields


def _suggestion(key: Key) -> str:
    """The nearest setting by name: in the same section, or the same key in another one."""
    fields = _section_fields(key[:-1])
    near = difflib.get_close_matches(key[-1], fields, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    others = {name: section for section in RunSettings.model_fields for name in _section_fields((section,))}
    elsewhere = difflib.get_close_matches(key[-1], others, n=1, cutoff=0.8)
    if elsewhere:
        return f"did you mean {others[elsewhere[0]]}.{elsewhere[0]}?"
    return "known here: " + ", ".join(fields)


def expectation(key: Key) -> str:
    """What a field takes, from its type and bounds."""
    field = _section_fields(key[:-1])[key[-1]]
    if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
        return "a section with these keys is expected: " + ", ".join(field.annotation.model_fields)
    schema = _section_schema(key[:-1])["properties"][key[-1]]
    return f"{_describe(schema)} is expected"


def _section_schema(key: Key) -> dict[str, Any]:
    model: Any = WeightedSource if key and key[-1].isdigit() else RunSettings
    for part in () if model is WeightedSource else key:
        model = model.model_fields[part].annotation
    schema: dict[str, Any] = model.model_json_schema()
    return schema


def _describe(schema: Mapping[str, Any]) -> str:
    """A JSON Schema in words, for example `an integer from 1 to 1024`."""
    if "anyOf" in schema:
        return " or ".join(_describe(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "const" in schema or "enum" in schema:
        return " or ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    bounds = [f"{words} {schema[bound]}" for bound, words in BOUNDS.items() if bound in schema]
    words = {
        "integer": "an integer",
        "number": "a number",
        "boolean": "true or false",
        "string": "text",
        "array": "a list of texts",
        "object": "settings, each with the list of its values, such as lora.r: [8, 16],",
    }
    if schema.get("minItems"):
        words["array"] += ", at least one,"
    if schema.get("items", {}).get("type") == "integer":
        words["array"] = words["array"].replace("texts", "integers")
    if "$ref" in schema.get("items", {}):
        words["array"] = "a list of {source, weight}"
    if "enum" in schema.get("items", {}):
        words["array"] = f"a list of {', '.join(schema['items']['enum'])}"
    pattern = f" that matches {schema['pattern']}" if "pattern" in schema else ""
    if "examples" in schema:
        pattern = f" such as {schema['examples'][0]}"
    return " ".join([words[schema["type"]], *bounds]) + pattern


def _path_mistakes(values: Mapping[str, Any], places: Mapping[Key, str], where: str) -> list[str]:
    """Local paths that cannot work, found before anything starts."""
    mistakes = [*input_mistakes(values), *metric_mistakes(values)]
    return [f"{_place_of(tuple(key.split('.')), places, where)}  {key} {what}" for key, what in mistakes]


def _unique(lines: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(lines))
