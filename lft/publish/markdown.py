"""Foreign names in Markdown and in Python: shown as they are, and obeyed by nobody."""

import re
import unicodedata
from collections.abc import Iterable, Sequence

MOST_CHARACTERS = 200
INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories of what steers a terminal or a page, turns the direction of writing, or is not shown."""


def one_line(text: str) -> str:
    """Without line breaks and invisible signs, and not too long."""
    seen = "".join(" " if unicodedata.category(letter) in INVISIBLE else letter for letter in text)
    line = " ".join(seen.split())
    return line if len(line) <= MOST_CHARACTERS else line[:MOST_CHARACTERS] + "..."


def plain(text: str) -> str:
    """A name in a heading or a sentence, in which nothing is markup."""
    return re.sub(r"([\\`*_\[\]<>|~&#$])", r"\\\1", one_line(text))


def code(text: str) -> str:
    """A name as a code span, in which nothing is markup: https://spec.commonmark.org/0.31.2/#code-spans."""
    line = one_line(text)
    fence = "`" * (max(map(len, re.findall("`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}" if line else "(no name)"


def literal(text: str) -> str:
    """A Python string in a block of code that it cannot end."""
    line = one_line(text)
    return f'"{line}"' if re.fullmatch(r"[\w./ -]*", line) else ascii(line).replace("`", r"\x60")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; the cells are Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
