"""A block of examples becomes one Arrow batch of tokens, where only what is trained has a label.

Rows are cut where what is trained begins and ends, and the pieces tokenized apart, because that is how the model meets a prompt
when it generates. Labels are made from pieces, never from padding ids, so that a pad token that equals the end token does no
harm. A text that a block repeats, such as a system prompt, is tokenized once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from lft.data.encoder import Encoder
from lft.data.example import BadRow, Example, Style
from lft.data.shape import Shape
from lft.data.shard_format import BEGIN_DOUBLED, CUT, END_TRAINED, IGNORED, MASKED, SCHEMA, BlockCounts
from lft.data.writing import LossOn, Piece, Writing, Written, adds_special_tokens
from lft.data.zero_copy import lists_of, to_arrow, to_numpy

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VERIFIED = 4
"""Rows of each block and shape that are written by the template too, and compared."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Everything besides the rows and the tokenizer that decides what the tokens are, in JSON values."""

    format: str
    """How columns become turns, in words."""
    style: Style
    max_length: int
    """In tokens; longer rows are cut at the end."""
    loss_on: LossOn = "auto"
    chat_template: str | None = None
    """Jinja, where it is not the tokenizer's own."""


class _Differs(Exception):  # noqa: N818  caught in this file
    """A compiled template wrote or tokenized a row otherwise than the template itself."""


class _Plan(NamedTuple):
    """A shape, its pieces cut further at special tokens: what each segment is, so that constant ones repeat."""

    shape: Shape
    segments: tuple[tuple[str | int, ...], ...]
    pieces: tuple[int, ...]
    """Of each segment, the number of its piece."""


class _Rows(NamedTuple):
    """The rows of a block as they are about to be tokenized; `plan` is None for those that the template wrote."""

    places: list[tuple[int, int]]
    examples: list[Example]
    written: list[Written | _Plan]


class _Tokens(NamedTuple):
    """All tokens of a block, one after the other."""

    values: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    lengths: Ints
    """Tokens of each row."""
    answers: Ints
    """Tokens before each row's last answer."""


def begin_tokens(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """What the tokenizer itself puts before a text, if anything."""
    ids: list[int] = tokenizer("").input_ids
    return ids[:1] if ids and ids[0] == tokenizer.bos_token_id else []


class Tokenization:
    """Makes token rows of examples by `rules`. Made once a process; a block's tokens depend on the block's rows alone.

    Raises DataError where the chat template is no Jinja. `announce` gets a line for whoever watches, each at most once.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        rules: TokenRules,
        announce: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._rules, self._announce = rules, announce
        self._writing = Writing(tokenizer, rules.style, rules.loss_on, rules.chat_template)
        self._encoder = Encoder(tokenizer, announce)
        self._begin = begin_tokens(tokenizer) if adds_special_tokens(rules.style) else []
        self._bos, self._bos_id = str(tokenizer.bos_token or ""), tokenizer.bos_token_id
        self._plans: dict[int, _Plan] = {}
        self._said_slow = False

    def describe(self) -> str:
        """For people: which way rows become tokens."""
        return self._encoder.describe()

    def block(self, rows: Iterable[tuple[int, int, Example | BadRow]]) -> tuple[pa.RecordBatch, BlockCounts]:
        """The rows (file, where, example) that have text and answer, in order, as SCHEMA; and what became of all of them.

        Rows whose completion lies wholly behind max_length are kept, flagged MASKED: they carry no loss.
        """
        everything = list(rows)
        try:
            return self._block(everything, compiled=True)
        except _Differs:
            if not self._said_slow:
                self._said_slow = True
                self._announce("data       the chat template is rendered for each row: filling it in gave another text")
            return self._block(everything, compiled=False)

    def _block(
        self, everything: Sequence[tuple[int, int, Example | BadRow]], *, compiled: bool
    ) -> tuple[pa.RecordBatch, BlockCounts]:
        kept = _Rows([], [], [])
        bad: list[tuple[int, int, str]] = []
        hashes: list[tuple[int, int]] = []
        empty = 0
        for file, where, example in everything:
            try:
                if isinstance(example, BadRow):
                    raise example
                if self._writing.is_empty(example):
                    empty += 1
                    continue
                digests = _hashes(example)
                shape = self._writing.shape(example) if compiled else None
                kept.written.append(self._plan(shape) if shape else self._writing.write(example))
            except BadRow as problem:
                bad.append((file, where, str(problem)))
                continue
            hashes.append(digests)
            kept.places.append((file, where))
            kept.examples.append(example)
        tokens = self._apart(kept) if self._encoder.cuts else self._whole(kept)
        batch = self._batch(self._cut(tokens), tokens.lengths, hashes, kept.places)
        masked = int((to_numpy(batch.column("trained")) == 0).sum())
        return batch, BlockCounts(rows=len(everything), kept=len(batch), empty=empty, bad=tuple(bad), masked=masked)

    def _plan(self, shape: Shape) -> _Plan:
        plan = self._plans.get(id(shape))
        if plan is None or plan.shape is not shape:
            if len(self._plans) >= 1024:
                self._plans.clear()
            segments, pieces = [], []
            for number, text in enumerate(shape.slots.texts):
                cut = _cut_at(self._encoder.borders, text)
                segments += cut
                pieces += [number] * len(cut)
            plan = self._plans[id(shape)] = _Plan(shape, tuple(segments), tuple(pieces))
        return plan

    def _apart(self, rows: _Rows) -> _Tokens:
        """Every piece tokenized on its own; all texts of the block in one call, each once."""
        numbers: dict[str, int] = {}
        order: list[int] = []  # of each segment, the number of its text
        trained: list[bool] = []
        segments: list[int] = []  # of each row
        before_answer: list[int] = []  # segments of each row that stand before its last answer
        to_verify = self._verified(rows)
        number = numbers.setdefault
        for example, written in zip(rows.examples, rows.written, strict=True):
            if isinstance(written, _Plan):
                shape = written.shape
                contents = shape.slots.stripped(example.contents)
                texts = [
                    part[0] if len(part) == 1 and isinstance(part[0], str) else _join(part, contents)
                    for part in written.segments
                ]
                flags = [shape.trained[piece] for piece in written.pieces]
                answer = None if shape.answer is None else written.pieces.index(shape.answer)
            else:
                texts = [piece.text for piece in written.pieces]
                flags = [piece.trained for piece in written.pieces]
                answer = written.answer
            begins = bool(self._begin) and not texts[0].startswith(self._bos)
            if begins:
                order.append(-1)
                trained.append(False)
            order.extend([number(text, len(numbers)) for text in texts])
            trained.extend(flags)
            segments.append(len(texts) + begins)
            before_answer.append(0 if answer is None else answer + begins)
        checks = [(row, [number(piece.text, len(numbers)) for piece in pieces]) for row, pieces in to_verify]
        ids = [*self._encoder.ids(list(numbers)), self._begin]
        ordered = [ids[each] for each in order]
        counts = np.fromiter(map(len, ordered), np.int64, len(ordered))
        starts = _starts(np.array(segments, np.int64))
        ends = np.concatenate([[0], np.cumsum(counts)])
        for row, expected in checks:
            first = starts[row] + (order[starts[row]] == -1)
            found = ordered[first : starts[row] + segments[row]]
            if [*chain.from_iterable(found)] != [*chain.from_iterable(ids[each] for each in expected)]:
                raise _Differs
        return _Tokens(
            np.array([*chain.from_iterable(ordered)], np.int32),
            np.repeat(np.array(trained, np.bool_), counts),
            ends[starts + np.array(segments, np.int64)] - ends[starts],
            ends[starts + np.array(before_answer, np.int64)] - ends[starts],
        )

    def _whole(self, rows: _Rows) -> _Tokens:
        """Every row tokenized as one text; a token that begins before what is trained belongs to what stands before."""
        self._verified(rows)
        all_pieces = [
            _filled(written, example) if isinstance(written, _Plan) else written.pieces
            for example, written in zip(rows.examples, rows.written, strict=True)
        ]
        texts = ["".join(piece.text for piece in pieces) for pieces in all_pieces]
        values: list[list[int]] = []
        trained: list[npt.NDArray[np.bool_]] = []
        answers: list[int] = []
        encoded = self._encoder.ids_and_starts(texts)
        for written, pieces, text, (ids, starts) in zip(rows.written, all_pieces, texts, encoded, strict=True):
            answer = written.shape.answer if isinstance(written, _Plan) else written.answer
            begin = [] if self._bos and text.startswith(self._bos) else self._begin
            borders = np.cumsum([len(piece.text) for piece in pieces])
            piece_of = np.minimum(np.searchsorted(borders, starts, side="right"), len(pieces) - 1)
            flags = np.array([piece.trained for piece in pieces])[piece_of]
            values.append([*begin, *ids])
            trained.append(np.concatenate([np.zeros(len(begin), np.bool_), flags]))
            answers.append(0 if answer is None else len(begin) + int((piece_of < answer).sum()))
        return _Tokens(
            np.array([*chain.from_iterable(values)], np.int32),
            np.concatenate([np.zeros(0, np.bool_), *trained]),
            np.fromiter(map(len, values), np.int64, len(values)),
            np.array(answers, np.int64),
        )

    def _verified(self, rows: _Rows) -> list[tuple[int, tuple[Piece, ...]]]:
        """The first compiled rows, and their pieces as the template writes them. Raises _Differs if they are others."""
        verified: list[tuple[int, tuple[Piece, ...]]] = []
        seen: dict[int, int] = {}
        for row, (example, written) in enumerate(zip(rows.examples, rows.written, strict=True)):
            if isinstance(written, _Plan) and seen.setdefault(id(written), 0) < VERIFIED:
                seen[id(written)] += 1
                expected = self._by_template(example)
                if expected != Written(_filled(written, example), written.shape.answer):
                    raise _Differs
                verified.append((row, expected.pieces))
        return verified

    def _by_template(self, example: Example) -> Written:
        try:
            return self._writing.write(example)
        except BadRow:
            raise _Differs from None

    def _cut(self, tokens: _Tokens) -> _Tokens:
        """The rows without what is behind max_length, and without labels for what nothing predicts."""
        limit = self._rules.max_length
        values, trained, lengths, answers = tokens
        trained[_starts(lengths)[lengths > 0]] = False
        if len(lengths) and lengths.max() > limit:
            kept = np.arange(len(values)) - np.repeat(_starts(lengths), lengths) < limit
            values, trained, lengths = values[kept], trained[kept], np.minimum(lengths, limit)
        return _Tokens(values, trained, lengths, np.minimum(answers, lengths))

    def _batch(
        self, tokens: _Tokens, uncut: Ints, hashes: list[tuple[int, int]], places: list[tuple[int, int]]
    ) -> pa.RecordBatch:
        values, trained, lengths, answers = tokens
        ends = np.cumsum(lengths)
        before = np.concatenate([[0], np.cumsum(trained)])  # trained tokens before each position
        counts = before[ends] - before[ends - lengths]
        last = np.concatenate([[0], np.flatnonzero(trained)])[before[ends]]  # position of each row's last trained token
        flags = CUT * (uncut > lengths) + MASKED * (counts == 0)
        if len(values):
            flags += END_TRAINED * ((counts > 0) & np.isin(values[last], self._encoder.special_ids))
            first, second = ends - lengths, np.minimum(ends - lengths + 1, len(values) - 1)
            doubled = (lengths > 1) & (values[np.minimum(first, len(values) - 1)] == values[second])
            flags += BEGIN_DOUBLED * (doubled & (values[second] == self._bos_id) & (self._bos_id is not None))
        offsets = np.concatenate([[0], ends])
        both = np.array(hashes, np.uint64).reshape(-1, 2)
        at = np.array(places, np.int64).reshape(-1, 2)
        columns: list[Any] = [
            lists_of(offsets, values),
            lists_of(offsets, np.where(trained, values, np.int32(IGNORED))),
            *(counts, answers, both[:, 0], both[:, 1], at[:, 0], at[:, 1], flags, uncut),
        ]
        arrays = [
            column if isinstance(column, pa.Array) else to_arrow(column, field.type)
            for column, field in zip(columns, SCHEMA, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _filled(plan: _Plan, example: Example) -> tuple[Piece, ...]:
    texts = plan.shape.slots.fill(example.contents)
    return tuple(Piece(text, trained) for text, trained in zip(texts, plan.shape.trained, strict=True))


def _join(parts: Sequence[str | int], contents: Sequence[str]) -> str:
    return "".join([part if isinstance(part, str) else contents[part] for part in parts])


def _cut_at(borders: Any, text: Sequence[str | int]) -> list[tuple[str | int, ...]]:
    """A piece's text in segments; constant text is cut off at its outermost special tokens, and kept in one."""
    segments: list[list[str | int]] = [[]]
    for part in text:
        found = [match.span() for match in borders.finditer(part)] if borders and isinstance(part, str) else []
        if isinstance(part, str) and found:
            first, last = found[0][0], found[-1][1]
            segments[-1] += [part[:first]] if first else []
            segments += [[part[first:last]], [part[last:]] if part[last:] else []]
        else:
            segments[-1].append(part)
    return [tuple(segment) for segment in segments if segment]


def _starts(lengths: Ints) -> Ints:
    """Where each of consecutive stretches begins."""
    return np.cumsum(lengths) - lengths


def _hashes(example: Example) -> tuple[int, int]:
    """xxh3 of all turns and of the prompt's; of a plain text both are of the whole. Raises BadRow for what is not Unicode."""
    content = _hash(example, len(example.roles))
    return content, _hash(example, example.completion_from) if example.completion_from else content


def _hash(example: Example, turns: int) -> int:
    roles, contents = example.roles[:turns], example.contents[:turns]
    # lengths in front make one text of many without doubt where each ends
    head = f"{roles}{[*map(len, contents)]}"
    if example.messages is not None or example.tools is not None:
        head += repr((example.messages and example.messages[:turns], example.tools))
    try:
        return int(xxhash.xxh3_64_intdigest("".join((head, *contents)).encode()))
    except UnicodeEncodeError as error:
        raise BadRow(f"holds {error.object[error.start]!r}, half a character of a broken pair") from None
