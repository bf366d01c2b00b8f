"""Looking at a model and at data while someone is asked about them: in seconds, without the libraries that train."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lft.core.errors import DataError
from lft.core.model_facts import ModelFacts, UnknownModel
from lft.core.paths import expanded, looks_local
from lft.core.settings import DataSettings
from lft.core.words import about, counted, rounded
from lft.data.cache import usable_cache
from lft.data.example import BadRow, Example, Row
from lft.data.formats import RowFormat, recognise, unused_columns
from lft.data.source import Source
from lft.data.sources import open_source
from lft.plan.aims import Lengths

SECONDS = 3.0
"""At most, for reading rows; what is not read is estimated by the bytes that were."""
BYTES_A_TOKEN = 3.0
"""Where the model's tokenizer is not at hand: English has some 4, code and Chinese some 3."""
TOKENS_A_TURN, TOKENS_A_ROW = 6, 24
"""What chat templates add around each turn, and with a system text of their own, about."""
SAMPLE = 200
"""Rows that the tokenizer is tried on."""
MOST_SHARE = 0.99


@dataclass(frozen=True, slots=True)
class DataLook:
    """What was found in local data."""

    row_format: RowFormat
    unused: list[str]
    rows: int
    is_all: bool
    """Whether all rows were read; otherwise `rows` is an estimate."""
    bad: int
    first_bad: str
    lengths: Lengths | None
    is_measured: bool
    """Whether tokens were counted with the model's tokenizer, and not by bytes alone."""

    def lines(self) -> list[str]:
        """For people."""
        told = "" if self.is_all else "about "
        unused = f"; not used: {', '.join(self.unused)}" if self.unused else ""
        found = [f"  rows       {told}{counted(self.rows, 'row')}, read as {self.row_format.describe()}{unused}"]
        if self.lengths is not None:
            how = "a sample was tokenized" if self.is_measured else f"{BYTES_A_TOKEN:.0f} bytes taken for a token"
            longest, most = about(self.lengths.longest), about(self.lengths.most)
            found.append(f"  length     the longest row has about {longest} tokens, 99 of 100 at most {most} ({how})")
        if self.bad:
            found.append(f"  warning    {counted(self.bad, 'row')} cannot be used, the first: {self.first_bad}")
        return found


def model_line(model: ModelFacts | UnknownModel) -> str:
    """What is known of a model."""
    if isinstance(model, UnknownModel):
        return f"  model      not looked at: {model.reason}"
    longest = f", rows of at most {model.max_positions:,} tokens" if model.max_positions else ""
    return (
        f"  model      {model.model_type}, {rounded(model.parameters)} parameters in {model.checkpoint_type}{longest}"
    )


def look_at_data(data: DataSettings, model: str) -> DataLook | None:
    """Rows, columns and lengths of local data; None for data sets on the Hub. Raises DataError as a run would."""
    if not all(map(looks_local, data.source_names)):
        return None
    source = open_source(data, cache=usable_cache())
    head = source.head()
    row_format = _recognised(source, head, data)
    tally = _Tally()
    share = tally.read(source, row_format)
    rows, is_all = round(tally.rows / share), share == 1
    lengths, is_measured = _lengths(tally, _tokenizer(model))
    unused = unused_columns(head, row_format)
    return DataLook(row_format, unused, rows, is_all, tally.bad, tally.first_bad, lengths, is_measured)


class UnclearColumnsError(DataError):
    """Rows can be read, and their columns do not say what asks and what answers."""


def _recognised(source: Source, head: list[Row], data: DataSettings) -> RowFormat:
    if not head:
        places = (
            f"{source.place(block.file, where)}  {row}" for block in source.blocks for where, row in source.read(block)
        )
        raise DataError(f"no row can be read; {next(places, 'there is none')}")
    try:
        return recognise(head, data)
    except DataError as problem:
        raise UnclearColumnsError(problem.message, next_step=problem.next_step) from None


class _Tally:
    """Rows read so far."""

    def __init__(self) -> None:
        self.rows = self.bad = 0
        self.first_bad = ""
        self.sizes: list[int] = []
        """Bytes of text of each row."""
        self.turns: list[int] = []
        self.longest: Example | None = None
        self.sample: list[Example] = []

    def read(self, source: Source, row_format: RowFormat) -> float:
        """Read rows until the time is over; returns the share that was read, 1 for all, by the blocks, which are alike."""
        until = time.monotonic() + SECONDS
        for number, block in enumerate(source.blocks, start=1):
            for where, row in source.read(block):
                self.rows += 1
                try:
                    if isinstance(row, BadRow):
                        raise row
                    self._take(row_format.example(row))
                except BadRow as problem:
                    self.bad += 1
                    self.first_bad = self.first_bad or f"{source.place(block.file, where)}  {problem}"
                if not self.rows % 256 and time.monotonic() > until:
                    return min(number / len(source.blocks), 0.99)
        return 1

    def _take(self, example: Example | None) -> None:
        if example is None:
            return
        size = _size(example)
        if self.longest is None or size > _size(self.longest):
            self.longest = example
        if len(self.sample) < SAMPLE:
            self.sample.append(example)
        self.sizes.append(size)
        self.turns.append(len(example.roles))


def _size(example: Example) -> int:
    return sum(len(text.encode()) for text in example.contents)


def _lengths(tally: _Tally, tokenizer: Any) -> tuple[Lengths | None, bool]:
    """Of the rows read, about, in tokens."""
    if not tally.sizes:
        return None, False
    bytes_a_token = BYTES_A_TOKEN
    if tokenizer is not None:
        texts = [text for example in (*tally.sample, tally.longest) if example for text in example.contents]
        tokens = sum(len(each.ids) for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
        bytes_a_token = sum(len(text.encode()) for text in texts) / max(tokens, 1)
    lengths = sorted(
        round(size / bytes_a_token) + turns * TOKENS_A_TURN + TOKENS_A_ROW
        for size, turns in zip(tally.sizes, tally.turns, strict=True)
    )
    most = lengths[min(int(MOST_SHARE * len(lengths)), len(lengths) - 1)]
    return Lengths(longest=lengths[-1], most=most), tokenizer is not None


def _tokenizer(model: str) -> Any:
    """The tokenizers.Tokenizer of a folder, or of a model in the Hub client's cache; None where there is none at hand."""
    path = next(_tokenizer_files(model), None)
    if path is None:
        return None
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception:  # it raises a plain Exception for files that it does not understand
        return None


def _tokenizer_files(model: str) -> Iterator[Path]:
    if looks_local(model):
        found = expanded(model) / "tokenizer.json"
        if found.is_file():
            yield found
        return
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(model, "tokenizer.json")
    if isinstance(cached, str):
        yield Path(cached)
