"""Answers, their losses and their scores do not depend on how the work is shared out."""

import json
import math

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from transformers import AutoModelForCausalLM

from lft.data.example import Example
from lft.data.token_block import Tokenization, TokenRules
from lft.train.generation import generate_answers, greedy, length_batches, prompt_tokens, row_losses
from lft.train.model import load_tokenizer
from lft.train.rouge import mean_scores, rouge_scores
from tests.conftest import TinyModels, demo_lines

ROWS: list[dict[str, str]] = [json.loads(line) for line in demo_lines(12)]


@pytest.mark.parametrize(("name", "style"), [("gpt2", "pair"), ("llama", "chat")])
def test_a_left_padded_batch_answers_as_one_prompt_at_a_time_does(
    tiny_models: TinyModels, name: str, style: str
) -> None:
    folder = str(getattr(tiny_models, name))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), load_tokenizer(folder)
    prompts = prompt_tokens(tokenizer, style, [row["prompt"] for row in ROWS])  # type: ignore[arg-type]
    together = generate_answers(model, tokenizer, prompts, 16)
    assert together == [generate_answers(model, tokenizer, [prompt], 16)[0] for prompt in prompts]
    assert all(together)
    assert not any(row["prompt"] in answer or "<|" in answer for row, answer in zip(ROWS, together, strict=True))


def test_answers_are_the_likeliest_whatever_sampling_the_checkpoint_suggests(tiny_models: TinyModels) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_models.llama)
    tokenizer = load_tokenizer(str(tiny_models.llama))
    model.generation_config.do_sample, model.generation_config.temperature = True, 5.0
    model.generation_config.eos_token_id = [0, 2]
    prompts = prompt_tokens(tokenizer, "chat", [row["prompt"] for row in ROWS[:4]])
    assert generate_answers(model, tokenizer, prompts, 8) == generate_answers(model, tokenizer, prompts, 8)
    assert greedy(model, tokenizer, 8).eos_token_id == [0, 2]


def test_batches_hold_similar_lengths_and_every_row_once_the_longest_first() -> None:
    assert length_batches([3, 9, 9, 1, 5], 2) == [[1, 2], [4, 0], [3]]


def test_row_losses_are_those_of_the_model_itself(tiny_models: TinyModels) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_models.gpt2), load_tokenizer(str(tiny_models.gpt2))
    examples = [Example(("user", "assistant"), (row["prompt"], row["completion"]), 1) for row in ROWS]
    rules = TokenRules("prompt and completion", "pair", 256)
    batch, _ = Tokenization(tokenizer, rules).block((0, where, example) for where, example in enumerate(examples))
    tokens = batch.select(["input_ids", "labels"]).to_pylist()
    for row, (loss, count) in zip(tokens, row_losses(model, 0, tokens), strict=True):
        labels = torch.tensor([row["labels"]])
        alone = float(model(input_ids=torch.tensor([row["input_ids"]]), labels=labels).loss.detach())
        assert count == int((labels != -100).sum())
        assert math.isclose(loss / count, alone, rel_tol=1e-5)


def test_scores_are_the_reference_scorer_s_with_stemming() -> None:
    predictions, references = ["the dogs ran away", "", "x"], ["a dog runs away", "nothing", "x"]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    scores = rouge_scores(predictions, references)
    for index, (prediction, reference) in enumerate(zip(predictions, references, strict=True)):
        expected = scorer.score(reference, prediction)
        assert {name: values[index] for name, values in scores.items()} == {
            name: expected[name].fmeasure for name in ("rouge1", "rouge2", "rougeL")
        }
    assert scores["rouge1"][2] == 1.0
    assert mean_scores({"rouge1": [0.0, 0.5]}) == {"rouge1": 0.25}
