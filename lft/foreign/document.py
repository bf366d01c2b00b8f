"""Reading another project's configuration, YAML or JSON, with the line of every key."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lft.core.errors import SettingsError

KeyPath = tuple[str, ...]
"""A key and those around it; elements of a list by their number."""
DEEPEST = 5
"""Keys further inside keep the line of those around them: an alias may make a text that never ends."""


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """What a file holds, and where."""

    path: Path
    values: dict[str, Any]
    lines: Mapping[KeyPath, int]
    repeated: tuple[tuple[str, int], ...] = ()
    """Keys that stand again further down, where they count, each with the line that does not."""

    def line(self, key: KeyPath) -> int:
        """Where a key, or the nearest one around it, stands."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)

    def place(self, key: KeyPath) -> str:
        """`axolotl.yml:31`."""
        return f"{self.path.name}:{self.line(key)}"


def read_foreign(path: Path) -> ForeignFile:
    """Read a file. Raises SettingsError, with the line where there is one, for what is no mapping in YAML or JSON."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError([f"{path}  {error.strerror or error}"], source=str(path)) from None
    except UnicodeDecodeError as error:
        raise SettingsError([f"{path}  is not UTF-8 text (byte {error.start})"], source=path.name) from None
    return _from_json(path, text) if path.suffix.lower() == ".json" else _from_yaml(path, text)


def _from_json(path: Path, text: str) -> ForeignFile:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise _mistake(path, error.lineno, f"is not JSON: {error.msg}") from None
    try:  # JSON is YAML but for its tabs
        node = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    return _made(path, values, node)


def _from_yaml(path: Path, text: str) -> ForeignFile:
    loader = yaml.SafeLoader(text)
    try:
        node = _only_document(path, loader)
        repeated = list(_repeated(node))  # before construction, which adds what anchors merge in
        values = loader.construct_document(node) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _mistake(path, line, f"is not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: looks like a date, and is none
        raise _mistake(path, 1, "is not YAML: " + " ".join(str(error).split())) from None
    finally:
        loader.dispose()
    return _made(path, values, node, repeated)


def _only_document(path: Path, loader: yaml.SafeLoader) -> yaml.Node | None:
    """The one document that holds something. Raises SettingsError for a second one: no project reads it."""
    found = None
    while loader.check_node():
        node = loader.get_node()
        if isinstance(node, yaml.ScalarNode) and node.value == "":
            continue
        if found is not None:
            line = node.start_mark.line + 1 if node is not None else 1
            raise _mistake(path, line, "a second document begins; one is expected: keep the one that is meant")
        found = node
    return found


def _made(path: Path, values: Any, node: yaml.Node | None, repeated: Sequence[tuple[str, int]] = ()) -> ForeignFile:
    if not isinstance(values, dict) or not values:
        what = "holds nothing" if not values else f"is one {type(values).__name__}"
        raise _mistake(path, 1, f"keys with values are expected, and the file {what}")
    lines = dict(_lines(node, ())) if node is not None else {}
    return ForeignFile(path, {str(key): value for key, value in values.items()}, lines, tuple(repeated))


def _lines(node: yaml.Node, key: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    """The line of each key, the last of equal ones, which counts."""
    for name, at, value in _inside(node):
        yield (*key, name), at.start_mark.line + 1
        if len(key) + 1 < DEEPEST:
            yield from _lines(value, (*key, name))


def _repeated(node: yaml.Node | None, key: KeyPath = ()) -> Iterator[tuple[str, int]]:
    """Keys that stand again further down, with the line where they do not count."""
    seen: dict[str, int] = {}
    for name, at, value in _inside(node):
        if name in seen and name != "<<":
            yield ".".join((*key, name)), seen[name]
        seen[name] = at.start_mark.line + 1
        if len(key) + 1 < DEEPEST:
            yield from _repeated(value, (*key, name))


def _inside(node: yaml.Node | None) -> list[tuple[str, yaml.Node, yaml.Node]]:
    """Name, where it stands, and value of each key or element."""
    if isinstance(node, yaml.MappingNode):
        return [(str(name.value), name, value) for name, value in node.value]
    if isinstance(node, yaml.SequenceNode):
        return [(str(number), value, value) for number, value in enumerate(node.value)]
    return []


def _mistake(path: Path, line: int, what: str) -> SettingsError:
    return SettingsError([f"{path.name}:{line}  {what}"], source=path.name)
