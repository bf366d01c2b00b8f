"""What the sections of the settings are made of: their base, and the kinds of values in them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from lft.core.paths import expanded, looks_local
from lft.core.words import INTERVAL


def _no_bool(value: object) -> object:
    """YAML reads yes and on as true, which Python counts as 1."""
    if isinstance(value, bool):
        raise ValueError("a number is expected, not true or false")
    return value


NoBool = BeforeValidator(_no_bool)  # after the bounds, which the JSON Schema otherwise loses
Count = Annotated[int, Field(ge=1), NoBool]
CountOrZero = Annotated[int, Field(ge=0), NoBool]
NotNegative = Annotated[float, Field(ge=0), NoBool]
Interval = Annotated[str, Field(pattern=INTERVAL, examples=["10min"])]
Every = Literal["epoch"] | Count | Interval
Share = Annotated[float, Field(ge=0, lt=1), NoBool]


def absolute(path: Path) -> Path:
    """Of a path as it was typed."""
    return expanded(path).absolute()


def _absolute_if_local(name: str) -> str:
    """A local path means the same file wherever the resolved settings are read."""
    return str(absolute(Path(name))) if looks_local(name) else name


Name = Annotated[str, Field(min_length=1), AfterValidator(_absolute_if_local)]


class Section(BaseModel):
    """A part of the settings: cannot be changed once made, knows no keys but its own."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
        allow_inf_nan=False,  # JSON, in which settings reach the ranks, has neither
    )
