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
ROWS = 400
"""Enough for any run here."""
IGNORED = -100
Row = dict[str, list[int]]
RUNGS = ("packed", "attention", "adapters", "loss")
"""lft's, each on top of the one before."""


def main(order: dict[str, Any]) -> None:
    """Train, and print a line."""
    torch.set_num_threads(order["threads"])
    torch.manual_seed(order.get("seed", 0))
    tokenizer = AutoTokenizer.from_pretrained(order["model"])
    lines = Path(order["data"]).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    clock = Clock(order.get("held_out", 0), records, tokenizer)
    train = {"naive": naive, "trl": trl, "llamafactory": llamafactory}.get(order["rung"], lft)
    train(order, tokenizer, records, clock)
    print(json.dumps(clock.figures()))


class Clock(TrainerCallback):
    """Tokens a second of each step but the first, without padding; and the loss of held-out rows at the end."""

    def __init__(self, held_out: int, records: list[dict[str, str]], tokenizer: Any) -> None:
        self.tokens = self.peak_bytes = 0
        self.trained: list[int] = []
        self.base_dtype = ""
        self.marks: list[tuple[int, float, float]] = []
        self.rows = [tokens_of(record, tokenizer) for record in records[len(records) - held_out :]]
        self.loss: float | None = None

    def counting(self, collate: Any) -> Any:
        """`collate`, with its real and its trained tokens counted."""

        def counted(rows: Any) -> Any:
            batch = collate(rows)
            masks = [row["attention_mask"] for row in rows if "attention_mask" in row]
            # LLaMA-Factory numbers the rows of a pack in its mask; what has no mask has no padding
            self.tokens += sum(int(torch.tensor(mask).count_nonzero()) for mask in masks) or batch["input_ids"].numel()
            self.trained.append(int((batch["labels"] != IGNORED).sum()))
            return batch

        return counted

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """A step is done."""
        self.marks.append((self.tokens, time.process_time(), time.perf_counter()))

    def on_train_end(self, *_: Any, **given: Any) -> None:
        """Memory before, and the mean loss of a trained token of the rows that were held out, by transformers alone."""
        model = given["model"]
        self.base_dtype = str(next(model.parameters()).dtype)
        self.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if not self.rows:
            return
        model.eval()
        total, count = 0.0, 0
        with torch.no_grad():
            for row in self.rows:
                ids, labels = (torch.tensor(row[name])[None] for name in ("input_ids", "labels"))
                logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
                total += float(torch.nn.functional.cross_entropy(logits, labels[0, 1:], reduction="sum"))
                count += int((labels[0, 1:] != IGNORED).sum())
        self.loss = total / count

    def figures(self) -> dict[str, Any]:
        """Medians over the steps: tokens a second of the process's CPU time, and of the clock."""
        steps = [
            (after[0] - before[0], after[1] - before[1], after[2] - before[2])
            for before, after in zip(self.marks, self.marks[1:], strict=False)
        ]
        return {
            "tokens_per_cpu_second": statistics.median(tokens / cpu for tokens, cpu, _ in steps),
            "tokens_per_second": statistics.median(tokens / wall for tokens, _, wall in steps),
            "peak_bytes": self.peak_bytes,
            "trained_tokens": sum(self.trained[: len(self.marks)]),  # without what a loader has fetched ahead
            "base_dtype": self.base_dtype,
            "held_out_loss": self.loss,
        }


def arguments(order: dict[str, Any], **options: Any) -> dict[str, Any]:
    """What all runs share of TrainingArguments."""
    return {
        "output_dir": tempfile.gettempdir(),  # nothing is saved
        "max_steps": order["steps"] + 1,
        "per_device_train_batch_size": 1,
        "learning_rate": order.get("learning_rate", 2e-4),
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1000,
        "remove_unused_columns": False,
        "bf16": False,
        "seed": order.get("seed", 0),
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


def naive(order: dict[str, Any], tokenizer: Any, records: list[dict[str, str]], clock: Clock) -> None:
    """float32, every row padded to 512, transformers' own loss and collator."""
    collate = DataCollatorForSeq2Seq(tokenizer, padding="max_length", max_length=PADDED)
    rows: Any = [
        tokens | {"attention_mask": [1] * len(tokens["input_ids"])}
        for tokens in (tokens_of(record, tokenizer) for record in records[:200])
    ]
    options = TrainingArguments(**arguments(order, per_device_train_batch_size=4))
    Trainer(adapted(order), options, clock.counting(collate), train_dataset=rows, callbacks=[clock]).train()


def trl(order: dict[str, Any], tokenizer: Any, records: list[dict[str, str]], clock: Clock) -> None:
    """TRL's SFTTrainer, packing to 1,024, loss on the completion."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = [
        {
            "prompt": [{"role": "user", "content": record["instruction"]}],
            "completion": [{"role": "assistant", "content": record["output"]}],
        }
        for record in records[:ROWS]
    ]
    half = order["dtype"] == "bfloat16"
    options = arguments(order, bf16=half, packing=True, max_length=PACK, model_init_kwargs={"dtype": order["dtype"]})
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


def llamafactory(order: dict[str, Any], _tokenizer: Any, records: list[dict[str, str]], clock: Clock) -> None:
    """LLaMA-Factory, neat_packing to 1,024, SDPA, loss on the answer; the prompt is written by the model's own template."""
    from llamafactory.data import SFTDataCollatorWith4DAttentionMask as Collator
    from llamafactory.train.tuner import run_exp

    plain = Collator.__call__
    Collator.__call__ = lambda self, rows: clock.counting(lambda features: plain(self, features))(rows)
    shared = arguments(order, bf16=order["dtype"] == "bfloat16")
    del shared["remove_unused_columns"]  # its own affair
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "rows.json").write_text(json.dumps(records[:ROWS]), encoding="utf-8")
        (path / "dataset_info.json").write_text('{"rows": {"file_name": "rows.json"}}', encoding="utf-8")
        data = {"dataset": "rows", "dataset_dir": folder, "cutoff_len": PACK, "neat_packing": True}
        lora = {"finetuning_type": "lora", "lora_target": ",".join(TARGETS), "lora_rank": LORA["r"]}
        lora |= {name: LORA[name] for name in ("lora_alpha", "lora_dropout")}
        model: dict[str, Any] = {"model_name_or_path": with_dtype(order, path / "model"), "flash_attn": "sdpa"}
        model |= {"stage": "sft", "do_train": True, "disable_gradient_checkpointing": True}
        shared["output_dir"] = f"{folder}/adapter"  # it saves one in any case
        run_exp({**model, **data, **lora, **shared}, [clock])


def with_dtype(order: dict[str, Any], folder: Path) -> str:
    """The model with the order's number type in its configuration, which alone LLaMA-Factory loads it in on a CPU."""
    folder.mkdir()
    for file in Path(order["model"]).iterdir():
        (folder / file.name).symlink_to(file)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | {"dtype": order["dtype"]}), encoding="utf-8")
    return str(folder)


def lft(order: dict[str, Any], tokenizer: Any, records: list[dict[str, str]], clock: Clock) -> None:
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

    model, rank = adapted(order), Rank.from_environment()
    chosen = RUNGS[: RUNGS.index(order["rung"]) + 1]
    half = order["dtype"] == "bfloat16"
    if "attention" in chosen:
        model.get_base_model().set_attn_implementation(NAME)
    if "adapters" in chosen:
        quicken(model, rank)
    trained_tokens = TrainedTokens(model) if "loss" in chosen else None

    pad_rows = PackRows(int(tokenizer.pad_token_id))

    def collate(packs: Any) -> dict[str, Any]:
        batch = pad_rows(packs)
        kept = ("input_ids", "labels", "position_ids", "use_cache")
        return batch if "attention" in chosen else {name: batch[name] for name in kept}

    rows = TokenRows.from_dataset(Dataset.from_list([tokens_of(record, tokenizer) for record in records[:ROWS]]))
    items = PackedRows(rows, pack(rows.lengths, PACK, seed=order.get("seed", 0)))
    trainer = LoraTrainer(
        rank,
        items,
        trained_tokens,
        group_by_length=False,
        model=model,
        args=TrainingArguments(**arguments(order, bf16=half and "adapters" not in chosen)),
        data_collator=clock.counting(collate),
        callbacks=[clock],
    )
    trainer.train()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
