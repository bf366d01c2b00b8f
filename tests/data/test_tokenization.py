"""Rows to tokens: what is trained, and that ranks share the work without changing the result."""

import hashlib
import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoTokenizer

from lft.core.rank import Rank
from lft.data.chat import choose_style
from lft.data.columns import RowFormat
from lft.data.shards import content_key, cut_blocks, tokenize_sharded
from lft.data.tokenization import TokenCounts, TokenRules, tokenize_rows
from lft.train.model import load_tokenizer
from tests.conftest import TinyModels, demo_lines

PAIR = RowFormat(("prompt",), "completion")
ROWS: list[dict[str, object]] = [json.loads(line) for line in demo_lines(600)]


def rules_for(tokenizer: Any, **changes: Any) -> TokenRules:
    """The usual rules for rows with answers."""
    return replace(TokenRules(PAIR, choose_style(tokenizer, has_answers=True), 256, "completion"), **changes)


def trained_text(tokenizer: Any, row: dict[str, Any]) -> str:
    """The tokens that have a label, decoded."""
    return str(tokenizer.decode([label for label in row["labels"] if label >= 0]))


@pytest.mark.parametrize(("name", "end"), [("gpt2", "<|endoftext|>"), ("llama", "<|im_end|>")])
def test_exactly_the_answer_and_its_end_token_are_trained(tiny_models: TinyModels, name: str, end: str) -> None:
    tokenizer = load_tokenizer(str(getattr(tiny_models, name)))
    tokens = tokenize_rows(ROWS[:50], tokenizer, rules_for(tokenizer)).to_pylist()
    assert [trained_text(tokenizer, row) for row in tokens] == [f"{row['completion']}{end}" for row in ROWS[:50]]


def test_a_chat_row_is_the_template_s_text_with_one_begin_token(tiny_models: TinyModels) -> None:
    tokenizer = load_tokenizer(str(tiny_models.llama))
    row = tokenize_rows([{"prompt": "Hi?", "completion": "Yes."}], tokenizer, rules_for(tokenizer)).to_pylist()[0]
    whole = "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>"
    assert tokenizer.decode(row["input_ids"]) == whole


def test_the_begin_token_a_tokenizer_adds_stands_once_and_is_not_trained(tiny_models: TinyModels) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(tiny_models.llama)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    plain = TokenRules(RowFormat(("text",), None), "text", 64, "all")
    row = tokenize_rows([{"text": "a dog"}], tokenizer, plain).to_pylist()[0]
    assert tokenizer.decode(row["input_ids"]) == "<|im_start|>a dog<|im_end|>"
    assert row["labels"] == [-100, *row["input_ids"][1:]]


def test_loss_on_all_trains_the_prompt_too(tiny_models: TinyModels) -> None:
    tokenizer = load_tokenizer(str(tiny_models.gpt2))
    row = tokenize_rows(ROWS[:1], tokenizer, rules_for(tokenizer, loss_on="all")).to_pylist()[0]
    assert row["labels"] == row["input_ids"]


def test_empty_rows_and_rows_whose_answer_is_cut_off_are_left_out_and_long_ones_marked(tiny_models: TinyModels) -> None:
    tokenizer = load_tokenizer(str(tiny_models.gpt2))
    rows: list[dict[str, object]] = [
        {"prompt": "a", "completion": " "},
        {"prompt": "a", "completion": None},
        {"prompt": "dog " * 40, "completion": "x"},
        {"prompt": "a", "completion": "dog " * 40},
        {"prompt": "a", "completion": "b"},
    ]
    tokens = tokenize_rows(rows, tokenizer, rules_for(tokenizer, max_length=20)).to_pylist()
    assert [row["was_cut"] for row in tokens] == [True, False]
    assert [len(row["input_ids"]) for row in tokens] == [20, 4]


def test_a_pad_token_changes_no_text(tiny_models: TinyModels) -> None:
    bare, padded = AutoTokenizer.from_pretrained(tiny_models.gpt2), load_tokenizer(str(tiny_models.gpt2))
    text = "a dog<|endoftext|>a [PAD] <pad>"
    assert bare.pad_token is None
    assert padded.pad_token == "<|endoftext|>"
    assert (len(bare), bare(text).input_ids) == (len(padded), padded(text).input_ids)


def shard_digests(cache: Path) -> dict[str, str]:
    """Every shard's name and digest."""
    shards = cache.glob("tokens/*/block-*.arrow")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards}


def prepare(model: Path, cache: Path, world_size: int) -> tuple[list[list[int]], TokenCounts]:
    """All ranks at once, each in a thread; what rank 0 gets. They meet in files only, as processes would."""

    def one(rank: int) -> tuple[Dataset, TokenCounts]:
        tokenizer = load_tokenizer(str(model))
        who = Rank(rank=rank, local_rank=rank, world_size=world_size, local_world_size=world_size)
        rows = Dataset.from_list(ROWS)
        return tokenize_sharded(rows, tokenizer, rules_for(tokenizer), cache=cache, rank=who, announce=lambda _: None)

    with ThreadPoolExecutor(world_size) as ranks:
        results = list(ranks.map(one, range(world_size)))
    assert all(tokens["input_ids"][:] == results[0][0]["input_ids"][:] for tokens, _ in results)
    return results[0][0]["input_ids"][:], results[0][1]


def test_any_number_of_ranks_writes_the_same_bytes_and_reads_the_same_rows(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    alone = prepare(tiny_models.gpt2, tmp_path / "1", 1)
    assert len(cut_blocks(len(ROWS))) == 3
    assert alone[1].kept == len(ROWS)
    for world_size in (2, 3, 5):
        assert prepare(tiny_models.gpt2, tmp_path / str(world_size), world_size) == alone
        assert shard_digests(tmp_path / str(world_size)) == shard_digests(tmp_path / "1")


def test_a_rank_tokenizes_only_its_own_blocks_and_a_second_run_none(tiny_models: TinyModels, tmp_path: Path) -> None:
    done: list[int] = []

    def counted(rows: list[dict[str, object]], *rest: Any) -> Any:
        done.append(len(rows))
        return tokenize_rows(rows, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lft.data.shards.tokenize_rows", counted)
        prepare(tiny_models.gpt2, tmp_path, 3)
        assert sorted(done) == [88, 256, 256]
        prepare(tiny_models.gpt2, tmp_path, 2)
    assert sorted(done) == [88, 256, 256]


def test_the_cache_key_follows_all_that_decides_the_tokens_and_nothing_else(tiny_models: TinyModels) -> None:
    gpt2, llama = load_tokenizer(str(tiny_models.gpt2)), load_tokenizer(str(tiny_models.llama))
    rows = Dataset.from_list(ROWS[:20])
    usual = content_key(rows, gpt2, rules_for(gpt2))
    assert usual == content_key(Dataset.from_list(ROWS[:20]), load_tokenizer(str(tiny_models.gpt2)), rules_for(gpt2))
    other_template = load_tokenizer(str(tiny_models.llama))
    other_template.chat_template = "{{ messages[0].content }}"
    others = [
        content_key(Dataset.from_list(ROWS[:19]), gpt2, rules_for(gpt2)),
        content_key(Dataset.from_list([ROWS[1], ROWS[0], *ROWS[2:20]]), gpt2, rules_for(gpt2)),
        content_key(rows, gpt2, rules_for(gpt2, max_length=99)),
        content_key(rows, gpt2, rules_for(gpt2, loss_on="all")),
        content_key(rows, llama, rules_for(llama)),
        content_key(rows, other_template, rules_for(llama)),
    ]
    assert len({usual, *others}) == 1 + len(others)


def _prepare_alone(model: Path, cache: Path) -> None:
    prepare(model, cache, 1)


def test_two_runs_at_once_share_the_cache(tiny_models: TinyModels, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=_prepare_alone, args=(tiny_models.gpt2, tmp_path)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(shard_digests(tmp_path)) == 3
    assert not list(tmp_path.glob("tokens/*/.*"))
