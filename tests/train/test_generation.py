"""Answers, their losses and their scores do not depend on how the work is shared out."""

import json
import math
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForCausalLM

from lft.data.example import Example
from lft.data.token_block import Tokenization, TokenRules
from lft.train.benchmark import Question, halves, spread
from lft.train.benchmark_job import tell_cut, tell_unscored
from lft.train.finetuner import LLMFineTuner
from lft.train.generation import answer_all, generate_answers, greedy, length_batches, prompt_tokens, room
from lft.train.loss import TrainedTokens
from lft.train.model import load_tokenizer
from lft.train.rouge import ALL_NAMES, mean_scores, rouge_scores
from lft.train.row_losses import row_losses
from tests.conftest import TinyModels, demo_lines

ROWS: list[dict[str, str]] = [json.loads(line) for line in demo_lines(12)]


@pytest.mark.parametrize(("name", "style"), [("gpt2", "pair"), ("llama", "chat")])
def test_a_left_padded_batch_answers_as_one_prompt_at_a_time_does(
    tiny_models: TinyModels, name: str, style: str
) -> None:
    folder = str(getattr(tiny_models, name))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(folder)
    prompts = prompt_tokens(tokenizer, style, [row["prompt"] for row in ROWS])  # type: ignore[arg-type]
    together = answer_all(model, tokenizer, prompts, 40, len(prompts))
    assert together == answer_all(model, tokenizer, prompts, 40, 1)
    assert all(together)
    assert not any(row["prompt"] in answer or "<|" in answer for row, answer in zip(ROWS, together, strict=True))


def test_an_answer_that_ends_leaves_the_batch_and_the_others_go_on_as_they_would_have(tiny_models: TinyModels) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(tiny_models.llama)
    tokenizer = load_tokenizer(str(tiny_models.llama))
    prompts = prompt_tokens(tokenizer, "chat", [row["prompt"] for row in ROWS])
    rows_at_once: list[int] = []
    step = model.forward

    def counted(**inputs: Any) -> Any:
        rows_at_once.append(len(inputs["input_ids"]))
        return step(**inputs)

    model.forward = counted
    rounds: list[int] = []
    answers = generate_answers(model, tokenizer, prompts, 64, lambda: rounds.append(len(rows_at_once)))
    encoded = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    whole = model.generate(**encoded, generation_config=greedy(model, tokenizer, 64)).sequences
    texts = tokenizer.batch_decode(whole[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    assert [answer.text for answer in answers] == [text.strip() for text in texts]
    lengths = sorted({answer.tokens for answer in answers})
    assert lengths[0] <= 16 < lengths[-1], "some end in the first round, some go on"
    assert rows_at_once[0] == len(prompts) > rows_at_once[rounds[-1]]
    assert rounds == list(range(0, rounds[-1] + 1, 16))


def test_answers_are_the_likeliest_whatever_sampling_the_checkpoint_suggests(tiny_models: TinyModels) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_models.llama)
    tokenizer = load_tokenizer(str(tiny_models.llama))
    model.generation_config.do_sample, model.generation_config.temperature = True, 5.0
    model.generation_config.eos_token_id = [0, 2]
    prompts = prompt_tokens(tokenizer, "chat", [row["prompt"] for row in ROWS[:4]])
    likeliest = answer_all(model, tokenizer, prompts, 8, 4)
    assert likeliest == answer_all(model, tokenizer, prompts, 8, 4)
    model.generation_config.repetition_penalty, model.generation_config.num_beams = 50.0, 3
    model.generation_config.min_new_tokens, model.generation_config.no_repeat_ngram_size = 8, 1
    assert answer_all(model, tokenizer, prompts, 8, 4) == likeliest
    assert greedy(model, tokenizer, 8).eos_token_id == [0, 2]


def test_a_prompt_leaves_the_answer_the_room_it_needs_and_at_most_half() -> None:
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=100))
    assert [room(model, new) for new in (0, 20, 50, 200)] == [100, 80, 50, 50]
    assert room(SimpleNamespace(config=SimpleNamespace()), 20) is None


def test_prompts_that_are_asked_without_their_beginning_are_counted_aloud() -> None:
    said: list[str] = []
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=100))
    finetuner = cast(LLMFineTuner, SimpleNamespace(model=model, announce=said.append))
    asked = [Question("", "", list(range(length)), {}) for length in (10, 80, 81, 300)]
    tell_cut(finetuner, asked, max_new_tokens=20)
    assert said == [
        "benchmark  2 prompts of more than 80 tokens asked without the beginning, to leave room for an answer of 20 "
        "(benchmark.max_new_tokens)"
    ]
    tell_cut(finetuner, asked[:2], max_new_tokens=20)
    assert len(said) == 1


def test_texts_that_rouge_cannot_count_are_told() -> None:
    said: list[str] = []
    finetuner = cast(LLMFineTuner, SimpleNamespace(announce=said.append))
    tell_unscored(finetuner, [Question("", text, [1], {}) for text in ("\u043e\u0434\u0438\u043d", "one", "\u4e00")])
    assert "2 of 3 texts have none" in said[0]
    tell_unscored(finetuner, [Question("", "Eins", [1], {})])
    assert len(said) == 1


def test_prompts_are_taken_from_all_rows_evenly() -> None:
    assert spread(np.arange(10), 4).tolist() == [0, 2, 5, 7]
    assert spread(np.arange(3), 4).tolist() == [0, 1, 2]
    assert spread(np.arange(0), 4).tolist() == []


def test_a_text_is_cut_in_two_between_words_or_characters() -> None:
    assert halves("one two  three four") == ("one two", "three four")
    assert halves("def f(x):\n    return x\n") == ("def f(x):", "return x")
    assert halves("a\n  bb c") == ("a\n  bb", "c")
    assert halves("\u4e00\u4e8c\u4e09\u56db") == ("\u4e00\u4e8c", "\u4e09\u56db")


def test_batches_hold_similar_lengths_and_every_row_once_the_longest_first() -> None:
    assert length_batches([3, 9, 9, 1, 5], 2) == [[1, 2], [4, 0], [3]]


@pytest.mark.parametrize("in_chunks", [True, False])
def test_row_losses_are_those_of_the_model_itself(tiny_models: TinyModels, in_chunks: bool) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_models.gpt2), load_tokenizer(str(tiny_models.gpt2))
    examples = [Example(("user", "assistant"), (row["prompt"], row["completion"]), 1) for row in ROWS]
    rules = TokenRules("prompt and completion", "pair", 256)
    batch, _ = Tokenization(tokenizer, rules).block((0, where, example) for where, example in enumerate(examples))
    tokens = batch.select(["input_ids", "labels"]).to_pylist()
    model.requires_grad_(not in_chunks)  # a projection that is trained is left alone
    assert (TrainedTokens.problem(model) is None) == in_chunks
    for row, (loss, count) in zip(tokens, row_losses(model, 0, tokens), strict=True):
        labels = torch.tensor([row["labels"]])
        alone = float(model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss.detach())
        assert count == int((labels != -100).sum())
        assert math.isclose(loss / count, alone, rel_tol=1e-5)


def test_scores_are_the_reference_scorer_s_with_stemming_on_any_number_of_processes() -> None:
    texts = [row["completion"] for row in ROWS] + ["the dogs ran away", "", "x", "two dogs.\nOne ran away"] * 40
    references = [row["prompt"] for row in ROWS] + ["a dog runs away", "nothing", "x", "one dog\nruns"] * 40
    scorer = RougeScorer(list(ALL_NAMES), use_stemmer=True)
    expected = [scorer.score(reference, text) for reference, text in zip(references, texts, strict=True)]
    for processes in (1, 3):
        scores = rouge_scores(texts, references, names=ALL_NAMES, processes=processes)
        assert scores == {name: [score[name].fmeasure for score in expected] for name in ALL_NAMES}
    assert rouge_scores(["x"], ["x"]) == {"rouge1": [1.0], "rouge2": [0.0], "rougeL": [1.0]}
    assert mean_scores({"rouge1": [0.0, 0.5]}) == {"rouge1": 0.25}
