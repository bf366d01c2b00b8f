"""A block of examples as tokens: real tokenizers decide, of both kinds."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import lft.data.token_block
from lft.data.example import BadRow, Example
from lft.data.shape import Slots
from lft.data.shard_format import BEGIN_DOUBLED, CUT, END_TRAINED, IGNORED, MASKED, SCHEMA
from lft.data.token_block import Tokenization, TokenRules
from lft.data.writing import Writing
from tests.conftest import TinyModels, demo_lines
from tests.data.chats import TEMPLATES, byte_level, metaspace
from tests.data.test_writing import CHATS, SMALL, chat, with_system

BYTES, SPACES, LEGACY = byte_level(), metaspace(), metaspace(legacy=True)
RULES = TokenRules("{prompt} -> {completion}", "chat", 4096)
RULES_PAIR = replace(RULES, style="pair")
PAIRS = [chat(row["prompt"], row["completion"]) for row in map(json.loads, demo_lines(300))]


def rows_of(tokenizer: Any, rules: TokenRules, *examples: Example | BadRow) -> list[dict[str, Any]]:
    batch, _ = Tokenization(tokenizer, rules).block((0, where, example) for where, example in enumerate(examples))
    assert batch.schema == SCHEMA
    batch.validate(full=True)
    return list(batch.to_pylist())


def decoded(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode([each for each in ids if each != IGNORED], clean_up_tokenization_spaces=False))


@pytest.mark.parametrize("name", TEMPLATES)
@SMALL
@given(example=CHATS)
def test_decoded_rows_are_the_texts_and_decoded_labels_the_trained_ones(name: str, example: Example) -> None:
    rules = replace(RULES, chat_template=TEMPLATES[name][0])
    for row in rows_of(BYTES, rules, example, with_system("x", "a", "b"), example):
        given_here = [example, with_system("x", "a", "b"), example][row["where"]]
        written = Writing(BYTES, "chat", "auto", rules.chat_template).write(given_here)
        assert decoded(BYTES, row["input_ids"]) == "".join(piece.text for piece in written.pieces)
        assert decoded(BYTES, row["labels"]) == "".join(piece.text for piece in written.pieces if piece.trained)
        before = "".join(piece.text for piece in written.pieces[: written.answer])
        assert decoded(BYTES, row["input_ids"][: row["answer_from"]]) == before
        assert row["trained"] == sum(label != IGNORED for label in row["labels"])
        assert row["flags"] == END_TRAINED
        assert row["labels"][-1] == row["input_ids"][-1]


@pytest.mark.parametrize("tokenizer", [SPACES, LEGACY], ids=["metaspace", "legacy"])
@pytest.mark.parametrize("name", TEMPLATES)
@SMALL
@given(example=CHATS)
def test_a_tokenizer_that_prepends_spaces_gains_no_token(
    tokenizer: PreTrainedTokenizerFast, name: str, example: Example
) -> None:
    rules = replace(RULES, chat_template=TEMPLATES[name][0])
    for row in rows_of(tokenizer, rules, example):
        pieces = Writing(tokenizer, "chat", "auto", rules.chat_template).write(example).pieces
        whole = tokenizer("".join(piece.text for piece in pieces), add_special_tokens=False).input_ids
        assert row["input_ids"] == whole
        assert row["labels"][-1] == whole[-1]
        assert row["flags"] == END_TRAINED


def test_each_way_of_tokenizing_is_chosen_by_the_tokenizer_and_said() -> None:
    assert Tokenization(BYTES, RULES_PAIR).describe() == "prompt and answer are tokenized apart"
    assert "as one text" in Tokenization(SPACES, RULES_PAIR).describe()
    assert "as one text" in Tokenization(LEGACY, RULES_PAIR).describe()


def test_exactly_the_answer_is_trained_where_spaces_are_prepended() -> None:
    rules = replace(RULES, chat_template=TEMPLATES["instructions"][0])
    row = rows_of(SPACES, rules, chat("Define dog.", "an animal"))[0]
    assert decoded(SPACES, row["labels"]).strip() == "an animal</s>"
    assert decoded(SPACES, row["input_ids"][: row["answer_from"]]).startswith("<s>")
    assert "animal" not in decoded(SPACES, row["input_ids"][: row["answer_from"]])


@pytest.mark.parametrize("style", ["pair", "text"])
@pytest.mark.parametrize("tokenizer", [BYTES, SPACES], ids=["bytes", "spaces"])
def test_the_begin_token_stands_once_and_is_not_trained(style: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    rules = replace(RULES, style=style)
    for text in ("a dog", "<s>a dog"):
        example = Example(("text",), (text,), 0) if style == "text" else chat(text, "yes")
        row = rows_of(tokenizer, rules, example)[0]
        assert row["input_ids"].count(tokenizer.bos_token_id) == 1
        assert row["input_ids"][0] == tokenizer.bos_token_id
        assert row["labels"][0] == IGNORED
        assert row["flags"] == END_TRAINED


def test_a_doubled_begin_token_is_flagged() -> None:
    rules = replace(RULES, chat_template="{{ bos_token }}" + TEMPLATES["headers"][0])
    assert rows_of(BYTES, rules, chat("a", "b"))[0]["flags"] == END_TRAINED | BEGIN_DOUBLED


def test_the_end_token_a_text_ends_with_is_not_doubled() -> None:
    rows = rows_of(BYTES, replace(RULES, style="text"), *[Example(("text",), (text,), 0) for text in ("a", "a</s>")])
    assert rows[0]["input_ids"] == rows[1]["input_ids"]


def test_long_rows_are_cut_at_the_end_and_those_without_labels_flagged() -> None:
    rules = replace(RULES_PAIR, max_length=20)
    rows = rows_of(BYTES, rules, chat("?", "a"), chat("dog " * 40, "x"), chat("a", "dog " * 40))
    assert [row["flags"] for row in rows] == [END_TRAINED, CUT | MASKED, CUT]
    assert [len(row["input_ids"]) for row in rows][1:] == [20, 20]
    assert rows[1]["answer_from"] == 20
    assert rows[1]["trained"] == 0
    whole = rows_of(BYTES, RULES_PAIR, chat("a", "dog " * 40))[0]
    assert rows[2]["labels"] == whole["labels"][:20]


def test_rows_without_answer_and_bad_ones_are_counted() -> None:
    given_rows: list[tuple[int, int, Example | BadRow]] = [
        (0, 7, BadRow("is null")),
        (0, 9, chat("a", " ")),
        (1, 3, chat("a", "b")),
        (1, 4, chat("a", "\ud800")),
    ]
    batch, counts = Tokenization(BYTES, RULES_PAIR).block(given_rows)
    assert (counts.rows, counts.kept, counts.empty) == (4, 1, 1)
    assert [(file, where) for file, where, _ in counts.bad] == [(0, 7), (1, 4)]
    assert [(row["file"], row["where"]) for row in batch.to_pylist()] == [(1, 3)]


def test_a_block_without_rows_is_an_empty_batch() -> None:
    for tokenizer in (BYTES, SPACES):
        assert rows_of(tokenizer, RULES_PAIR) == []


def test_hashes_tell_turns_apart_and_prompts_together() -> None:
    rows = rows_of(
        BYTES,
        RULES_PAIR,
        chat("ab", "c"),
        chat("a", "bc"),
        chat("ab", "d"),
        chat("ab", "c"),
        Example(("text",), ("ab",), 0),
    )
    content, prompt = [row["content"] for row in rows], [row["prompt"] for row in rows]
    assert len({*content}) == 4
    assert content[0] == content[3]
    assert prompt[0] == prompt[2] == prompt[3] != prompt[1]
    assert prompt[4] == content[4]


def test_a_block_s_tokens_are_those_of_its_rows_one_by_one() -> None:
    rules = replace(RULES, chat_template=TEMPLATES["chatml"][0])
    for tokenizer in (BYTES, SPACES):
        together = rows_of(tokenizer, rules, *PAIRS)
        one_by_one = [rows_of(tokenizer, rules, example)[0] for example in PAIRS[:40]]
        assert [row["input_ids"] for row in together[:40]] == [row["input_ids"] for row in one_by_one]
        assert [row["labels"] for row in together[:40]] == [row["labels"] for row in one_by_one]


def _cut_into_characters(borders: object, text: tuple[str | int, ...]) -> list[tuple[str | int, ...]]:
    return [(each,) for part in text for each in ([part] if isinstance(part, int) else part)]


@pytest.mark.parametrize("lie", ["text", "tokens"])
def test_what_is_filled_in_wrongly_is_noticed_and_rendered_instead(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = replace(RULES, chat_template=TEMPLATES["chatml"][0])
    expected = rows_of(BYTES, rules, *PAIRS[:10])
    if lie == "text":
        true_fill: Callable[..., list[str]] = Slots.fill
        wrong = lambda slots, contents: [f"{text}!" for text in true_fill(slots, contents)]  # noqa: E731
        tokenization = Tokenization(BYTES, rules, announce=(said := list[str]()).append)
        tokenization.block([(0, 0, PAIRS[0])])
        monkeypatch.setattr(Slots, "fill", wrong)
    else:
        monkeypatch.setattr(lft.data.token_block, "_cut_at", _cut_into_characters)
        tokenization = Tokenization(BYTES, rules, announce=(said := list[str]()).append)
    for _ in range(2):
        batch, _ = tokenization.block((0, where, example) for where, example in enumerate(PAIRS[:10]))
        assert batch.to_pylist() == expected
    assert len(said) == 1
    assert "rendered for each row" in said[0]


def test_a_tokenizer_without_rust_gives_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = replace(RULES, chat_template=TEMPLATES["chatml"][0])
    expected = rows_of(BYTES, rules, *PAIRS[:20])
    monkeypatch.setattr(type(BYTES), "is_fast", property(lambda self: False))
    slow = Tokenization(BYTES, rules)
    assert "without Rust" in slow.describe()
    assert slow.block((0, where, example) for where, example in enumerate(PAIRS[:20]))[0].to_pylist() == expected


@pytest.mark.parametrize(("name", "style"), [("gpt2", "pair"), ("llama", "chat")])
def test_a_model_s_own_tokenizer_trains_the_answer_and_its_end(tiny_models: TinyModels, name: str, style: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(getattr(tiny_models, name))
    rows = rows_of(tokenizer, replace(RULES, style=style), *PAIRS[:50])
    assert [decoded(tokenizer, row["labels"]) for row in rows] == [
        f"{example.contents[1]}{tokenizer.eos_token}" for example in PAIRS[:50]
    ]


class Gigatoken(ModuleType):
    """Stands in for the package: `change` is what it does to the tokens of each text."""

    def __init__(self, change: Callable[[list[int]], list[int]]) -> None:
        super().__init__("gigatoken")
        self.__spec__ = ModuleSpec("gigatoken", None)
        self.Tokenizer, self.change = self, change

    def from_json(self, source: str) -> "Gigatoken":
        self.rust = tokenizers.Tokenizer.from_str(source)
        return self

    def encode_batch_list(self, texts: list[str]) -> list[list[int]]:
        return [self.change(self.rust.encode(text, add_special_tokens=False).ids) for text in texts]


def _refuse(source: str) -> None:
    raise RuntimeError("no single-byte vocab entry\n\nLocation: src")


def test_gigatoken_is_used_while_it_is_equal_and_its_absence_of_equality_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = replace(RULES, chat_template=TEMPLATES["chatml"][0])
    rows, expected = [(0, where, example) for where, example in enumerate(PAIRS)], rows_of(BYTES, rules, *PAIRS)
    equal, other, refusing = Gigatoken(list), Gigatoken(lambda ids: ids[:-1]), Gigatoken(list)
    refusing.from_json = _refuse  # type: ignore[method-assign, assignment]
    for package, words in [(equal, ""), (other, "gives other tokens"), (refusing, "cannot load this tokenizer")]:
        monkeypatch.setitem(sys.modules, "gigatoken", package)
        tokenization = Tokenization(BYTES, rules, (said := list[str]()).append)
        assert ("by gigatoken" in tokenization.describe()) == (package is not refusing)
        for _ in range(2):
            assert tokenization.block(rows)[0].to_pylist() == expected
        assert len(said) == bool(words)
        assert words in "".join(said)
