"""The work of a benchmark, shared out over the ranks through files, and kept: an interrupted one goes on where it was.

A piece of work is one batch of prompts and one model. Ranks take the next piece that nobody has taken, whatever the others
are at, so that none waits for a slow one; what a piece contains, and so every score, does not depend on who takes it.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lft.core.files import aside
from lft.core.run_dir import Attempt, RunDir

Model = Literal["base", "tuned"]
MODELS: tuple[Model, ...] = ("base", "tuned")
POLL_SECONDS = 0.05
Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """One batch, by the numbers of its questions, for one model."""

    model: Model
    number: int
    batch: tuple[int, ...]

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.model}-{self.number:05}"


def pieces(batches: list[list[int]]) -> list[Piece]:
    """All work, in the order in which it is taken: a rank changes the model once or twice."""
    return [Piece(model, number, tuple(batch)) for model in MODELS for number, batch in enumerate(batches)]


class SharedWork:
    """The pieces of one benchmark, as one rank sees them. `digest` names all that the answers depend on."""

    def __init__(self, run_dir: RunDir, attempt: Attempt, digest: str, work: list[Piece]) -> None:
        self.work, self._parts, self._claims, self._all = (
            work,
            run_dir.answers / digest,
            attempt.claims / digest,
            run_dir.answers,
        )
        self._parts.mkdir(parents=True, exist_ok=True)
        self._claims.mkdir(parents=True, exist_ok=True)
        self.found = self.done()
        """Pieces that were there before."""

    def take(self) -> Iterator[Piece]:
        """The pieces that this rank is to answer, each claimed just before.

        Those that are there are claimed too: a rank that comes late must not take one for missing that is scored already.
        """
        for piece in self.work:
            if self._claim(piece) and not self._path(piece).exists():
                yield piece

    def keep(self, piece: Piece, lines: list[Line]) -> None:
        """Write the lines of a piece, whole or not at all: each with `index`, the number of its question."""
        with aside(self._path(piece)) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def done(self) -> int:
        """How many pieces are answered, by all ranks; all, where they are scored and gone."""
        try:
            return sum(name.endswith(".jsonl") and not name.startswith(".") for name in os.listdir(self._parts))
        except FileNotFoundError:
            return len(self.work)

    def collect(self, between: Callable[[], None]) -> dict[Model, list[Line]]:
        """The lines of all pieces in the order of the questions, as soon as they are there; `between` may raise.

        A rank that fails never writes its piece; its launcher notices and ends this process too.
        """
        while self.done() < len(self.work):
            between()
            time.sleep(POLL_SECONDS)
        found: dict[Model, list[Line]] = {model: [] for model in MODELS}
        for piece in self.work:
            found[piece.model] += map(json.loads, self._path(piece).read_text(encoding="utf-8").splitlines())
        return {model: sorted(lines, key=lambda line: int(line["index"])) for model, lines in found.items()}

    def finish(self) -> None:
        """Forget the pieces: the next benchmark begins anew."""
        shutil.rmtree(self._all, ignore_errors=True)

    def _path(self, piece: Piece) -> Path:
        return self._parts / f"{piece.name}.jsonl"

    def _claim(self, piece: Piece) -> bool:
        try:
            os.close(os.open(self._claims / piece.name, os.O_CREAT | os.O_EXCL))  # atomic, on NFS too
        except FileExistsError:
            return False
        return True
