"""One setting by its dotted name: whether there is one, what it is by default, what it takes."""

from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from lft.core.settings import RunSettings
from lft.core.settings_file import expectation


def is_setting(name: str) -> bool:
    """Whether there is one."""
    return _field(name) is not None


def default_of(name: str) -> Any:
    """What is done where nothing is said."""
    found = _field(name)
    return None if found is None else found.default


def refusal(name: str, value: Any) -> str:
    """What a setting takes, where it does not take `value`; else nothing."""
    found = _field(name)
    assert found is not None, name
    try:
        TypeAdapter(found.rebuild_annotation()).validate_python(value)
    except ValidationError:
        return expectation(tuple(name.split(".")))
    return ""


def _field(name: str) -> FieldInfo | None:
    model: Any = RunSettings
    *sections, last = name.split(".")
    for section in sections:
        field = model.model_fields.get(section)
        model = field.annotation if field else None
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return None
    found: FieldInfo | None = model.model_fields.get(last)
    return found
