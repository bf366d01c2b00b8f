"""The label audit: how much of the prepared rows is trained, and what about them should stop or worry their user.

Pure: numpy over the scalar columns of the shards, about 50 bytes of memory a row; the tokens themselves are not read.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from lft.core.errors import DataError
from lft.core.words import counted, percent
from lft.data.shard_format import BEGIN_DOUBLED, CUT, END_TRAINED

Level = Literal["stop", "warn", "note"]

FEW_ROWS = 20
"""Below this a run memorises its rows; the smallest sets of published LoRA work have some hundreds."""
LITTLE_TRAINED = 0.05
"""Answers of real sets are 15 to 60 % of the tokens; below 5 % a mask or a template is usually wrong."""
MANY_MASKED = 0.01
MANY_CUT = 0.10
"""A few long rows are better cut than paid for by all others; one in ten is a max_length that does not fit the data."""
MANY_WITHOUT_END = 0.01
"""A model that is not taught to end goes on until max_new_tokens."""
MANY_DUPLICATES = 0.01
MANY_SHARED_PROMPTS = 0.01
HELD_WHOLE = 99
"""Percentile of the lengths that a better max_length is to hold."""
LONGEST_SHOWN = 3
PLACES_SHOWN = 20


class Columns(Protocol):
    """What the audit needs of TokenRows."""

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """(rows,) tokens of each row."""

    def column(self, name: str) -> npt.NDArray[Any]:
        """(rows,) a scalar column of SCHEMA."""


class Counts(Protocol):
    """What the audit needs of a manifest."""

    @property
    def empty(self) -> int:
        """Rows without text or answer."""

    @property
    def bad(self) -> Sequence[tuple[int, int, str]]:
        """File, where and what is wrong of each row left out."""

    @property
    def masked(self) -> int:
        """Rows left out because their completion lies wholly behind max_length."""


class LongRow(NamedTuple):
    """One of the longest rows."""

    place: str
    tokens: int
    """Before it was cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Rows and tokens of one epoch, and what is odd about them. Rows are counted as often as their source's weight says."""

    rows: int
    held_out: int
    tokens: int
    trained: int
    """Tokens with a label."""
    masked: int
    """Rows in which nothing is trained, also those left out for it."""
    cut: int
    """Rows longer than max_length."""
    whole_without_end: int
    """Rows that were not cut, and whose end token is not trained although something is."""
    begin_doubled: int
    """Rows that begin with two begin tokens."""
    duplicates: int
    """Rows beyond the first of each content; repetitions by weight are none."""
    leaked: int
    """Held-out rows whose content is in training too: 0, since the split is by content."""
    shared_prompts: int
    """Held-out rows whose prompt, with another answer, is in training too."""
    empty: int
    bad: int
    bad_places: tuple[str, ...]
    """The first of them, each with what is wrong."""
    longest: tuple[LongRow, ...]
    length_for_most: int
    """The max_length that HELD_WHOLE % of the rows would fit into."""
    pad_is_end: bool
    """Whether padding and end are one token."""
    is_capped: bool
    """Whether rows were cut at the model's positions, so that a larger max_length would not help."""

    def to_json(self) -> dict[str, Any]:
        """All figures, as JSON values."""
        return asdict(self) | {"longest": [row._asdict() for row in self.longest]}


class Finding(NamedTuple):
    """Something about the rows that their user should know."""

    level: Level
    text: str
    next_step: str


def audit_rows(
    training: Columns,
    held_out: Columns,
    counts: Counts,
    place: Callable[[int, int], str],
    *,
    pad_is_end: bool = False,
    is_capped: bool = False,
) -> Audit:
    """Look at all rows; `place` says where a row is from, by file and where. Takes well under a second for a million rows."""
    flags, trained = training.column("flags"), training.column("trained")
    whole, content = training.column("whole"), training.column("content")
    file, where = training.column("file"), training.column("where")
    is_repeated = np.zeros(len(flags), bool)  # by its source's weight: then the same row stands directly before it
    is_repeated[1:] = (file[1:] == file[:-1]) & (where[1:] == where[:-1])
    distinct = np.sort(content[~is_repeated])
    has_prompt = held_out.column("answer_from") > 0
    longest = _largest(np.where(is_repeated, 0, whole), LONGEST_SHOWN)
    return Audit(
        rows=len(flags),
        held_out=len(has_prompt),
        tokens=int(training.lengths.sum(dtype=np.int64)),
        trained=int(trained.sum(dtype=np.int64)),
        masked=int((trained == 0).sum()) + counts.masked,
        cut=int((flags & CUT > 0).sum()),
        whole_without_end=int(((flags & (CUT | END_TRAINED) == 0) & (trained > 0)).sum()),
        begin_doubled=int((flags & BEGIN_DOUBLED > 0).sum()),
        duplicates=int((distinct[1:] == distinct[:-1]).sum()),
        leaked=_found(held_out.column("content"), distinct),
        shared_prompts=_found(held_out.column("prompt")[has_prompt], np.sort(training.column("prompt"))),
        empty=counts.empty,
        bad=len(counts.bad),
        bad_places=tuple(f"{place(*at)}: {problem}" for *at, problem in counts.bad[:PLACES_SHOWN]),
        longest=tuple(LongRow(place(int(file[row]), int(where[row])), int(whole[row])) for row in longest),
        length_for_most=int(np.percentile(whole, HELD_WHOLE, method="higher")) if len(whole) else 0,
        pad_is_end=pad_is_end,
        is_capped=is_capped,
    )


def _found(values: npt.NDArray[np.uint64], ascending: npt.NDArray[np.uint64]) -> int:
    """How many of `values` are among the others. By far faster than np.isin, which sorts both together."""
    if not len(ascending):
        return 0
    nearest = ascending[np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)]
    return int((nearest == values).sum())


def _largest(values: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int64]:
    """Where the largest are, the largest first; of equal ones the first."""
    if len(values) > count:
        at_least = np.partition(values, len(values) - count)[len(values) - count]
        places = np.flatnonzero(values >= at_least)
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")][:count]


class _Rule(NamedTuple):
    level: Level
    applies: Callable[[Audit], bool]
    text: Callable[[Audit], str]
    next_step: Callable[[Audit], str]


_LOOK = "lft data inspect shows what is trained"
_RULES = (
    _Rule(
        "stop",
        lambda audit: audit.trained == 0,
        lambda audit: (
            f"nothing would be trained: none of the {audit.tokens:,} tokens of {_rows(audit.rows)} has a label"
        ),
        lambda audit: (
            "raise data.max_length, so that answers are not cut off, or use --set data.loss_on=all"
            if audit.masked
            else "check data.source and data.text_columns: no row with text or an answer was found"
        ),
    ),
    _Rule(
        "stop",
        lambda audit: audit.leaked > 0,
        lambda audit: (
            f"{_rows(audit.leaked)} of those held out are in training too; a bug in lft, their loss would mislead"
        ),
        lambda _: "--set data.held_out=0, and please report it",
    ),
    _Rule(
        "warn",
        lambda audit: audit.rows < FEW_ROWS,
        lambda audit: f"there are only {_rows(audit.rows)} to train on: they will be memorised",
        lambda _: "check data.source and data.held_out",
    ),
    _Rule(
        "warn",
        lambda audit: 0 < audit.trained < LITTLE_TRAINED * audit.tokens,
        lambda audit: f"only {percent(audit.trained, audit.tokens)} of the tokens are trained",
        lambda _: f"{_LOOK}; data.loss_on, data.text_columns and the templates decide it",
    ),
    _Rule(
        "warn",
        lambda audit: audit.trained > 0 and audit.masked > MANY_MASKED * (audit.rows + audit.masked),
        lambda audit: f"nothing is trained in {_of_rows(audit.masked, audit.rows)}: the prompt fills max_length",
        lambda audit: f"raise data.max_length: {HELD_WHOLE} % of the rows fit into {audit.length_for_most:,} tokens",
    ),
    _Rule(
        "warn",
        lambda audit: audit.cut > MANY_CUT * audit.rows,
        lambda audit: f"{_of_rows(audit.cut, audit.rows)} are longer than data.max_length and lose their end",
        lambda audit: (
            "the model has no more positions: split the rows, or use another model"
            if audit.is_capped
            else f"--set data.max_length={audit.length_for_most} holds {HELD_WHOLE} % of them whole"
        ),
    ),
    _Rule(
        "warn",
        lambda audit: audit.whole_without_end > MANY_WITHOUT_END * audit.rows,
        lambda audit: f"{_of_rows(audit.whole_without_end, audit.rows)} do not train their end: the model may not stop",
        lambda _: f"{_LOOK}; the chat template must close every answer with the tokenizer's end token",
    ),
    _Rule(
        "warn",
        lambda audit: audit.begin_doubled > 0,
        lambda audit: f"{_of_rows(audit.begin_doubled, audit.rows)} begin with two begin tokens",
        lambda _: "take the begin token out of the template, or out of the texts",
    ),
    _Rule(
        "warn",
        lambda audit: audit.duplicates > MANY_DUPLICATES * audit.rows,
        lambda audit: f"{_of_rows(audit.duplicates, audit.rows)} repeat another one exactly",
        lambda _: "remove repetitions, unless they are meant: they are trained more often than the others",
    ),
    _Rule(
        "warn",
        lambda audit: audit.shared_prompts > MANY_SHARED_PROMPTS * audit.held_out,
        lambda audit: (
            f"{percent(audit.shared_prompts, audit.held_out)} of the held-out rows have a prompt that is in training "
            "too, with another answer"
        ),
        lambda _: "held-out figures will look better than they are; keep one row a prompt for a stricter comparison",
    ),
    _Rule(
        "note",
        lambda audit: audit.bad > 0,
        lambda audit: f"{counted(audit.bad, 'bad row')} left out, the first at {audit.bad_places[0]}",
        lambda _: "data.on_bad_row: error makes it stop there",
    ),
    _Rule(
        "note",
        lambda audit: audit.empty > 0,
        lambda audit: f"{_rows(audit.empty)} without text or answer left out",
        lambda _: "",
    ),
    _Rule(
        "note",
        lambda audit: audit.pad_is_end,
        lambda _: "padding and end are one token: harmless here, since labels come from the texts, not from the token",
        lambda _: "",
    ),
)
"""All that is ever found about rows, the worst first. Shares are of the rows of an epoch."""


def findings(audit: Audit) -> list[Finding]:
    """What applies, the worst first."""
    return [Finding(rule.level, rule.text(audit), rule.next_step(audit)) for rule in _RULES if rule.applies(audit)]


def refuse_hopeless(audit: Audit) -> None:
    """Raise DataError for what must not be trained on."""
    for finding in findings(audit):
        if finding.level == "stop":
            raise DataError(finding.text, next_step=finding.next_step)


def audit_lines(audit: Audit) -> list[str]:
    """The stage's announcement before step 1: the numbers in one line, and a line for each warning and note."""
    tokens = audit.tokens / audit.rows if audit.rows else 0
    lines = [
        f"labels     {_rows(audit.rows)} of {tokens:.0f} tokens, {percent(audit.trained, audit.tokens)} of them trained; "
        f"{audit.cut:,} cut, {audit.masked:,} without anything trained, {audit.held_out:,} held out"
    ]
    names = {"warn": "warning", "note": "note"}
    for finding in findings(audit):
        if finding.level in names:
            then = f"; {finding.next_step}" if finding.next_step else ""
            lines.append(f"{names[finding.level]:<10} {finding.text}{then}")
    return lines


def _rows(count: int) -> str:
    return counted(count, "row")


def _of_rows(count: int, rows: int) -> str:
    return f"{_rows(count)} ({percent(count, rows)})"
