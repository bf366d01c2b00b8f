"""One configuration of benchmarks.training in a process of its own: a few steps, and what they cost, as a line of JSON.

Runs in a peer's environment too, which need not have lft: `python training_run.py '{"rung": "trl", ...}'`.
"""

import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

LORA: dict[str, Any] = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.1, "task_type": "CAUSAL_LM"}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
PACK, PADDED = 1024, 512
IGNORED = -100
Row = dict[str, list[int]]
RUNGS = ("packed", "attention", "adapters", "loss")
"""lft's, each on top of the one before."""


def main(order: dict[str, Any]) -> None:
    """Train, and print a line."""
    torch.set_num_threads(order["threads"])
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(order["model"])
    lines = Path(order["data"]).read_text(encoding="utf-8").splitlines()
    run = {"naive": naive, "trl": trl}.get(order["rung"], lft)
    clock = run(order, tokenizer, [json.loads(line) for line in lines])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(clock.figures() | {"peak_bytes": peak}))


class Clock(TrainerCallback):
    """Tokens a second of each step but the first; tokens are those of rows, without padding."""

    def __init__(self) -> None:
        self.tokens = 0
        self.marks: list[tuple[int, float, float]] = []

    def counting(self, collate: Any) -> Any:
        """`collate`, with its real tokens counted."""

        def counted(rows: Any) -> Any:
            batch = collate(rows)
            mask = batch.get("attention_mask")
            self.tokens += int(mask.sum()) if mask is not None else batch["input_ids"].numel()
            return batch

        return counted

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step is done."""
        self.marks.append((self.tokens, time.process_time(), time.perf_counter()))

    def figures(self) -> dict[str, float]:
        """Medians over the steps: tokens a second of the process's CPU time, and of the clock."""
        steps = [
            (after[0] - before[0], after[1] - before[1], after[2] - before[2])
            for before, after in zip(self.marks, self.marks[1:], strict=False)
        ]
        return {
            "tokens_per_cpu_second": statistics.median(tokens / cpu for tokens, cpu, _ in steps),
            "tokens_per_second": statistics.median(tokens / wall for tokens, _, wall in steps),
        }


def arguments(order: dict[str, Any], **options: Any) -> dict[str, Any]:
    """What all runs share of TrainingArguments."""
    return {
        "output_dir": tempfile.gettempdir(),  # nothing is saved
        "max_steps": order["steps"] + 1,
        "per_device_train_batch_size": 1,
        "learning_rate": 2e-4,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1000,
        "remove_unused_columns": False,
        "bf16": False,
    } | options


def tokens_of(record: dict[str, str], tokenizer: Any) -> Row:
    """A row with its chat template; the answer is trained."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": record["instruction"]}], tokenize=False, add_generation_prompt=True
    )
    question = tokenizer(prompt, add_special_tokens=False).input_ids
    answer = tokenizer(record["output"] + tokenizer.eos_token, add_special_tokens=False).input_ids
    ids = (question + answer)[:PADDED]
    return {"input_ids": ids, "labels": ([IGNORED] * len(question) + answer)[:PADDED]}


def adapted(order: dict[str, Any]) -> Any:
    """The base model in the order's number type with a fresh adapter."""
    model = AutoModelForCausalLM.from_pretrained(order["model"], dtype=getattr(torch, order["dtype"]))
    model.requires_grad_(False)
    return get_peft_model(model, LoraConfig(target_modules=TARGETS, **LORA))


def naive(order: dict[str, Any], tokenizer: Any, records: list[dict[str, str]]) -> Clock:
    """float32, every row padded to 512, transformers' own loss and collator."""
    clock = Clock()
    collate = DataCollatorForSeq2Seq(tokenizer, padding="max_length", max_length=PADDED)
    rows: Any = [
        tokens | {"attention_mask": [1] * len(tokens["input_ids"])}
        for tokens in (tokens_of(record, tokenizer) for record in records[:200])
    ]
    options = arguments(order, per_device_train_batch_size=4)
    trainer = Trainer(
        adapted(order), TrainingArguments(**options), clock.counting(collate), train_dataset=rows, callbacks=[clock]
    )
    trainer.train()
    return clock


def trl(order: dict[str, Any], tokenizer: Any, records: list[dict[str, str]]) -> Clock:
    """TRL's SFTTrainer, packing to 1,024, loss on the completion."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [
        {
            "prompt": [{"role": "user", "content": record["instruction"]}],
            "completion": [{"role": "assistant", "content": record["output"]}],
        }
        for record in records[:400]
    ]
    half = order["dtype"] == "bfloat16"
    options = arguments(order, bf16=half, packing=True, max_length=PACK, model_init_kwargs={"dtype": order["dtype"]})
    clock = Clock()
    trainer = SFTTrainer(
        order["model"],
        args=SFTConfig(**options),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(target_modules=TARGETS, **LORA),
        callbacks=[clock],
    )
    trainer.data_collator = clock.counting(trainer.data_collator)
    trainer.train()
    return clock


def lft(order: dict[str, Any], tokenizer: Any, records: list[dict[str, str]]) -> Clock:
    """The trainer of lft up to the rung that is asked for."""
    from datasets import Dataset

    from lft.core.rank import Rank
    from lft.data.packing import PackedRows, pack
    from lft.data.token_rows import TokenRows
    from lft.train.attention import NAME
    from lft.train.batches import PackRows
    from lft.train.lora_forward import quicken
    from lft.train.loss import TrainedTokens
    from lft.train.trainer import LoraTrainer

    model, clock = adapted(order), Clock()
    chosen = RUNGS[: RUNGS.index(order["rung"]) + 1]
    half = order["dtype"] == "bfloat16"
    if "attention" in chosen:
        model.get_base_model().set_attn_implementation(NAME)
    if "adapters" in chosen:
        quicken(model, Rank())
    trained_tokens = TrainedTokens(model) if "loss" in chosen else None

    pad_rows = PackRows(int(tokenizer.pad_token_id))

    def collate(packs: Any) -> dict[str, Any]:
        batch = pad_rows(packs)
        kept = ("input_ids", "labels", "position_ids", "use_cache")
        return batch if "attention" in chosen else {name: batch[name] for name in kept}

    rows = TokenRows.from_dataset(Dataset.from_list([tokens_of(record, tokenizer) for record in records[:400]]))
    items = PackedRows(rows, pack(rows.lengths, PACK, seed=0))
    trainer = LoraTrainer(
        Rank(),
        items,
        trained_tokens,
        group_by_length=False,
        model=model,
        args=TrainingArguments(**arguments(order, bf16=half and "adapters" not in chosen)),
        data_collator=clock.counting(collate),
        callbacks=[clock],
    )
    trainer.train()
    return clock


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
