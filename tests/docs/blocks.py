"""What stands between the fences of a page, and what a reader does with it."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
FILE_NAME = re.compile(r"^`([\w.-]+\.(?:yaml|jsonl|json|csv|txt|jinja))`.*:$")
"""A line before a block that begins with a file's name and ends with a colon says that the block is that file."""


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. `file` is its name, where the text before it names one."""

    page: str
    line: int
    language: str
    text: str
    file: str | None

    @property
    def place(self) -> str:
        """As an editor jumps to it."""
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    """The page's path in the repository."""
    return str(page.relative_to(REPOSITORY))


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n")[2]
        named = FILE_NAME.match(before)
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(name_of(page), line, match[1], match[2], named[1] if named else None))
    return found


def programs(page: Path) -> list[Block]:
    """The shell and Python blocks, and those that are files; Python blocks that follow each other are one program."""
    kept: list[Block] = []
    for block in blocks_of(page):
        last = kept[-1] if kept else None
        if block.language == "python" and last and last.language == "python" and not block.file:
            kept[-1] = Block(last.page, last.line, "python", last.text + "\n" + block.text, None)
        elif block.language in ("sh", "bash", "python") or block.file:
            kept.append(block)
    return kept
