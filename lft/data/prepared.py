"""Prepared data, opened: rows as tokens, memory-mapped, split into training and held-out ones."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lft.core.settings import DataSettings
from lft.data.audit import Audit, audit_lines, audit_rows, refuse_hopeless
from lft.data.cache_entry import Hold
from lft.data.example import Example
from lft.data.formats import RowFormat
from lft.data.manifest import Manifest
from lft.data.shards import map_shards, shard_path
from lft.data.source import Source
from lft.data.split import Indices, split, weighted
from lft.data.token_rows import TokenRows

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Prepared:
    """The tokens of a source, and what is needed to say where they are from."""

    folder: Path
    manifest: Manifest
    source: Source
    format: RowFormat
    data: DataSettings
    held: Hold | None
    """Keeps the folder from being freed."""

    @cached_property
    def rows(self) -> TokenRows:
        """All rows, in the order of the source."""
        return TokenRows(map_shards(self.folder, self.manifest.blocks))

    @cached_property
    def training(self) -> TokenRows:
        """The rows to train on, each as often as its source's weight says. Raises DataError where there is none."""
        kept, _ = self._sides
        content, files = self.rows.column("content"), self.rows.column("file")
        return self.rows.take(weighted(kept, self.source.weights, files, content))

    @cached_property
    def held_out(self) -> TokenRows:
        """The rows kept out of training. Raises DataError where there are no others."""
        return self.rows.take(self._sides[1])

    @property
    def held_out_digest(self) -> str:
        """The same where the same rows are held out."""
        content = np.sort(self.held_out.column("content"))
        return hashlib.sha256(content.tobytes()).hexdigest()[:16]

    def dataset(self) -> "Dataset":
        """The rows with something to train, held out or not, as a memory-mapped data set of input_ids and labels."""
        from datasets import Dataset, concatenate_datasets

        shards = [shard_path(self.folder, index) for index in range(self.manifest.blocks)]
        rows = concatenate_datasets([Dataset.from_file(str(shard)) for shard in shards])
        if self.manifest.masked:
            rows = rows.select(np.flatnonzero(self.rows.column("trained") > 0))
        return rows.select_columns(["input_ids", "labels"])

    @cached_property
    def _sides(self) -> tuple[Indices, Indices]:
        """The numbers of the rows on either side that have something to train."""
        usable = np.flatnonzero(self.rows.column("trained") > 0)
        sides = split(self.rows.column("content")[usable], self.data.held_out)
        return usable[sides[0]], usable[sides[1]]

    def examples(self, rows: TokenRows) -> list[Example]:
        """These rows as they were read; reads again the blocks they are in."""
        places = list(zip(rows.column("file").tolist(), rows.column("where").tolist(), strict=True))
        wanted = set(places)
        found: dict[tuple[int, int], Example] = {}
        for block in self.source.blocks:
            inside = [place for place in wanted if place[0] == block.file and block.start <= place[1] < block.stop]
            if not inside:
                continue
            last = max(where for _, where in inside)
            for where, row in self.source.read(block):
                if (block.file, where) in wanted and isinstance(row, dict):
                    example = self.format.example(row)
                    if example is not None:
                        found[block.file, where] = example
                if where >= last:
                    break
        return [found[place] for place in places]


def audit_prepared(prepared: Prepared, announce: Callable[[str], None]) -> Audit:
    """Look at all labels before step 1, and say what was seen. Raises DataError where training would be for nothing."""
    audit = audit_rows(
        prepared.training,
        prepared.held_out,
        prepared.manifest,
        prepared.source.place,
        pad_is_end=prepared.manifest.pad_is_end,
        is_capped=prepared.manifest.max_length < prepared.data.max_length,
    )
    refuse_hopeless(audit)
    split = f"split      {audit.rows:,} rows to train on, {audit.held_out:,} held out"
    for line in (*prepared.manifest.words, *audit_lines(audit), split):
        announce(line)
    return audit
