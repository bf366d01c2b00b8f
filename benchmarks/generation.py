"""How fast answers are generated and scored: `python -m benchmarks.generation [MODEL] [PROMPTS] [ROUNDS]`.

The same prompts of the demo are answered greedily by three ways in turn, each in a process of its own with one thread: one
prompt at a time; transformers' generate with batches in the order of the data; and lft's. Then by lft on as many ranks as
there are cores. Tokens count up to each answer's end. Beside the wall clock stands the processor's time, which other work on
the machine disturbs less. At last, the time it takes to score 10,000 pairs.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

from lft.core.hardware import cpu_cores

WAYS = ("one by one", "generate, batches of 32", "lft, batches of 32")
NEW_TOKENS = 128
PAIRS = 10_000


def main() -> None:
    """Measure, and print the tables."""
    from lft.demo import demo_settings

    model = sys.argv[1] if len(sys.argv) > 1 else str(demo_settings()["model.name"])
    prompts, rounds = (int(sys.argv[place]) if len(sys.argv) > place else usual for place, usual in ((2, 32), (3, 2)))
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way in WAYS:
            found[way] += answer_in_processes(model, prompts, way, 1)
    print(f"{prompts} prompts, at most {NEW_TOKENS} new tokens, median of {rounds} rounds in turn, one thread")
    first = median(each["cpu"] for each in found[WAYS[0]])
    for way, each in found.items():
        tokens, wall, cpu = (median(one[name] for one in each) for name in ("tokens", "wall", "cpu"))
        print(f"| {way} | {tokens:,.0f} | {tokens / wall:.0f} | {tokens / cpu:.0f} | {first / cpu:.1f} |", flush=True)
    ranks = cpu_cores()
    for count in (1, ranks):
        each = answer_in_processes(model, prompts, "lft, batches of 16", count)
        wall = max(one["wall"] for one in each)
        print(
            f"| {count} ranks, batches of 16 | {sum(one['tokens'] for one in each) / wall:.0f} tokens/s |", flush=True
        )
    for words in (12, 100):
        for processes in (1, ranks):
            print(
                f"| {PAIRS:,} pairs of {words} words | {processes} | {seconds_to_score(words, processes)} |", flush=True
            )


def answer_in_processes(model: str, prompts: int, way: str, ranks: int) -> list[dict[str, float]]:
    """What each rank measured."""
    command = [sys.executable, "-m", "benchmarks.generation", "--rank", model, str(prompts), way]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*command, str(rank), str(ranks)], env=environment, stdout=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    texts = [process.communicate()[0] for process in processes]
    return [json.loads(text.strip().splitlines()[-1]) for text in texts]


def answer(name: str, prompts: int, way: str, rank: int, ranks: int) -> dict[str, float]:
    """Answer a rank's share; tokens generated, and wall and processor seconds for them."""
    import torch
    from transformers import AutoModelForCausalLM

    from lft.demo import FOLDER
    from lft.train.generation import generate_answers, greedy, length_batches, prompt_tokens
    from lft.train.model import load_tokenizer, resolve_model

    folder = resolve_model(name, lambda _: None)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = load_tokenizer(folder)
    with (FOLDER / "wordnet.jsonl").open(encoding="utf-8") as file:
        rows = [json.loads(next(file)) for _ in range(prompts)]
    asked = prompt_tokens(tokenizer, "chat", [row["prompt"] for row in rows])
    size = 1 if way == "one by one" else int(way.rsplit(" ", 1)[1])
    config = greedy(model, tokenizer, NEW_TOKENS)

    @torch.inference_mode()
    def plainly(batch: list[list[int]]) -> int:
        encoded: Any = tokenizer.pad({"input_ids": batch}, return_tensors="pt")
        output = model.generate(**encoded, generation_config=config).sequences[:, encoded["input_ids"].shape[1] :]
        ends = torch.isin(output, torch.tensor(config.eos_token_id)).int()
        return int((ends.cumsum(dim=1) - ends == 0).sum())

    def by_lft(batch: list[list[int]]) -> int:
        return sum(answer.tokens for answer in generate_answers(model, tokenizer, batch, NEW_TOKENS))

    work: Callable[[list[list[int]]], int] = by_lft if way.startswith("lft") else plainly
    batches = length_batches([len(each) for each in asked], size)
    if not way.startswith("lft"):
        batches = [list(range(start, min(start + size, prompts))) for start in range(0, prompts, size)]
    work([asked[0]])  # the first call warms up
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = sum(work([asked[index] for index in batch]) for batch in batches[rank::ranks])
    return {"tokens": tokens, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def seconds_to_score(words: int, processes: int) -> str:
    """Both models' answers against PAIRS references: ROUGE, exact match, losses, and all intervals."""
    import random

    from lft.train.answers import MODELS, Line, Model
    from lft.train.scoring import score

    chance = random.Random(0)
    vocabulary = [f"{chance.choice(['run', 'walk', 'small', 'green'])}{number}ing" for number in range(2_000)]

    def texts() -> list[str]:
        return [" ".join(chance.choices(vocabulary, k=words)) for _ in range(PAIRS)]

    references = texts()
    lines: dict[Model, list[Line]] = {
        model: [{"answer": text, "loss": chance.random(), "tokens": 9, "generated": 9} for text in texts()]
        for model in MODELS
    }
    start = time.perf_counter()
    score(references, lines, ["rouge"], [], processes=processes)
    return f"{time.perf_counter() - start:.1f} s"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        print(json.dumps(answer(sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), int(sys.argv[6]))))
    else:
        main()
