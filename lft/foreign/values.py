"""What other projects write, as the types that settings have. Each raises ValueError for what cannot be meant."""

from typing import Any

from lft.core.run_file_text import scalar

NOTHING = (None, False, "", "none", "no", "off", "false", "disabled")
"""Written for something that is not wanted."""
MOST_SHOWN = 60


def whole(value: Any) -> int:
    """`3`, `3.0` or `"3"`."""
    found = number(value)
    if found != int(found):
        raise ValueError("a whole number is expected")
    return int(found)


def number(value: Any) -> int | float:
    """A number, also one such as 2e-5, which YAML takes for a text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number is expected")
    found = float(value)
    if found != found or found in (float("inf"), float("-inf")):
        raise ValueError("a number is expected")
    return value if isinstance(value, int) else int(found) if found == int(found) and abs(found) >= 1 else found


def count_or_share(value: Any) -> int | float:
    """From 1 a whole number, below it a share."""
    found = number(value)
    return whole(found) if found >= 1 or found == 0 else found


def flag(value: Any) -> bool:
    """True or false, also as a text."""
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if str(value).lower() not in words:
        raise ValueError("true or false is expected")
    return words[str(value).lower()]


def text(value: Any) -> str:
    """A text, or a number as it stands."""
    if isinstance(value, dict | list):
        raise ValueError("a text is expected")
    return str(value)


def names(value: Any) -> list[str]:
    """A list of texts, also written with commas."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise ValueError("a list of texts is expected")
    found = [text(part).strip() for part in parts]
    return [part for part in found if part]


def is_off(value: Any) -> bool:
    """Whether a value says that something is not wanted."""
    return value in ([], {}, 0) or (value.lower() if isinstance(value, str) else value) in NOTHING


def shown(value: Any) -> str:
    """A value in a line for people."""
    words = " ".join((value if isinstance(value, str) else scalar(value)).split())
    return words if len(words) <= MOST_SHOWN else words[: MOST_SHOWN - 4] + " ..."
