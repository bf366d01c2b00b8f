"""The ranks' logs: their last lines, what is new in them, and the errors in them. They may be many, and gigabytes each."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from lft.core.run_dir import Attempt
from lft.launch.follow import rank_files

BLOCK_BYTES = 2**16
MOST_BYTES = 2**24
"""How far back from its end a log is read at most."""
MOST_BYTES_OF_ALL = 2**28
"""The same for all logs of an attempt together, when they are searched."""

_RANK_PREFIX = re.compile(r"^\[rank\d+\]:? ?")  # of torch, before each line of a traceback
_TIME_OF_DAY = re.compile(r"\d\d:\d\d:\d\d[.,\d]*")
_PROBLEM = re.compile(
    r"\b(\w*error|\w*exception|\w*warning|warn|fatal|critical|failed|aborted|killed)\b", re.IGNORECASE
)
_TRACEBACK = "Traceback (most recent call last)"
_CHAINED = ("During handling of the above exception", "The above exception was the direct cause")


def ranks_with_log(attempt: Attempt) -> list[int]:
    """The ranks that have a log, in order."""
    return [rank for rank, _ in rank_files(attempt.folder, ".log")]


def start_of_last_lines(path: Path, count: int, most_bytes: int = MOST_BYTES) -> int:
    """The offset at which the last `count` lines of a file start, or that of its last `most_bytes` bytes."""
    with path.open("rb") as stream:
        size = position = stream.seek(0, 2)
        first = max(0, size - most_bytes)
        found = 0
        while position > first:
            start = max(first, position - BLOCK_BYTES)
            stream.seek(start)
            block = stream.read(position - start)
            newline = block.rfind(b"\n", 0, size - 1 - start)  # the one that ends the file ends its last line
            while newline >= 0:
                found += 1
                if found == count:
                    return start + newline + 1
                newline = block.rfind(b"\n", 0, newline)
            position = start
        return first


class LogTail:
    """Reads one log from an offset on, and then what is new in it at each call."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path, self.read_to = path, offset

    def new_lines(self, *, to_the_end: bool = False) -> list[str]:
        """The next whole lines, at most MOST_BYTES of them; `to_the_end`: also the last one, that may not be whole."""
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.read_to)
                text = stream.read(MOST_BYTES)
        except FileNotFoundError:
            return []
        if not to_the_end and len(text) < MOST_BYTES:
            text = text[: text.rfind(b"\n") + 1]
        self.read_to += len(text)
        return text.decode(errors="replace").split("\n")[:-1] if text.endswith(b"\n") else _lines(text)


def problems_in(lines: Iterable[str]) -> Iterator[str]:
    """The warnings and errors among lines; a traceback, with those it was caused by, is one."""
    block: list[str] = []
    in_traceback = False
    for line in map(_without_rank, lines):
        goes_on = line.startswith((" ", "\t"))
        if block and (goes_on or (in_traceback and _belongs(line, block[-1]))):
            block.append(line)
        else:
            if block:
                yield "\n".join(block).rstrip()
            in_traceback = line.startswith(_TRACEBACK)
            block = [line] if in_traceback or _PROBLEM.search(line) else []
    if block:
        yield "\n".join(block).rstrip()


def folded_problems(attempt: Attempt, ranks: list[int]) -> dict[str, list[int]]:
    """Each problem in the ends of the ranks' logs, once, and the ranks that have it; those of the first rank first.

    Two are the same when they differ only in the time of day.
    """
    most_bytes = max(BLOCK_BYTES, min(MOST_BYTES, MOST_BYTES_OF_ALL // max(1, len(ranks))))
    texts: dict[str, str] = {}
    found: dict[str, list[int]] = {}
    for rank in ranks:
        path = attempt.log(rank)
        lines = LogTail(path, max(0, path.stat().st_size - most_bytes)).new_lines(to_the_end=True)
        for text in dict.fromkeys(problems_in(lines)):
            same = texts.setdefault(_TIME_OF_DAY.sub("", text), text)
            having = found.setdefault(same, [])
            if having[-1:] != [rank]:
                having.append(rank)
    return found


def _belongs(line: str, before: str) -> bool:
    """Whether an unindented line is part of the traceback before it: what was raised, or the start of what that caused."""
    if not before:
        return line.startswith((*_CHAINED, _TRACEBACK))
    return not line or before.startswith((" ", "\t"))


def _lines(text: bytes) -> list[str]:
    return text.decode(errors="replace").split("\n") if text else []


def _without_rank(line: str) -> str:
    return _RANK_PREFIX.sub("", line)
