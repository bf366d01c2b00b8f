"""What checkpoints cost, and how long a resumed run takes to its first step, beside transformers.Trainer's own.

    python -m benchmarks.resuming [--model FOLDER] [--rows 200000]

The first table trains a model for some steps with a checkpoint after each: how long training waits for one (the copies in
memory), and how long writing it takes beside the training. The second resumes at 10 % and at 90 % of one long epoch of rows
of 16 tokens on a tiny model, in micro-batches of 1: seconds of the process's CPU time from a loaded model to the end of the
first step, with what either makes of the rows and of its trainer; medians of three.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from lft import LLMFineTuner
from lft.core.checkpoints import FileDigest, Manifest
from lft.core.settings import TrainingSettings
from lft.demo.tiny import make_tiny
from lft.train.checkpoint import STATE, read_state
from lft.train.make_trainer import Meanwhile
from lft.train.trainer import LoraTrainer

STEPS, TOKENS, ROUNDS = 8, 16, 3


class FirstStep(TrainerCallback):
    """Notes when the first step ends, and stops there."""

    def __init__(self) -> None:
        self.started, self.seconds = time.process_time(), 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The first step is done."""
        self.seconds = self.seconds or time.process_time() - self.started
        control.should_training_stop = True


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="for the first table; else a tiny one")
    parser.add_argument("--rows", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tiny, _ = make_tiny(folder / "tiny")
        print(
            "| a checkpoint of | trained | training waits | writing beside it | size | a step |\n|---|---|---|---|---|---|"
        )
        print(cost(options.model or str(tiny), folder / "cost"))
        print("\n| resumed at | lft | transformers.Trainer |\n|---|---|---|")
        for share in (0.1, 0.9):
            step = int(share * options.rows)
            own = statistics.median(resume_lft(tiny, options.rows, step, folder) for _ in range(ROUNDS))
            theirs = statistics.median(resume_trainer(tiny, options.rows, step, folder) for _ in range(ROUNDS))
            print(f"| {share:.0%} of {options.rows:,} steps | {own:.2f} s | {theirs:.2f} s |", flush=True)


def rows_of(count: int, tokens: int = TOKENS) -> Dataset:
    """Rows of random bytes as tokens."""
    ids = np.random.default_rng(0).integers(0, 200, (count, tokens)).tolist()
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


def cost(model: str, out: Path) -> str:
    """One row of the first table."""
    waits: list[float] = []
    writes: list[float] = []
    plain = LoraTrainer._save_checkpoint

    def timed(self: LoraTrainer, *arguments: Any) -> None:
        self.writer.wait() if self.writer else None  # what is left of the one before is no copy
        started = time.perf_counter()
        plain(self, *arguments)
        waits.append(time.perf_counter() - started)

    LoraTrainer._save_checkpoint = timed  # type: ignore[method-assign, assignment]
    finetuner = LLMFineTuner(model, str(out))
    finetuner.load_model()
    finetuner.setup_lora(r=8)
    settings = TrainingSettings(max_steps=STEPS, save_every=1, log_every=STEPS)
    started = time.perf_counter()
    saved = Meanwhile(told_of_save=lambda _step, seconds: writes.append(seconds))
    finetuner.train(rows_of(64, 256), 1, 1, settings=settings, gradient_accumulation_steps=4, meanwhile=saved)
    step = (time.perf_counter() - started - sum(waits)) / STEPS
    LoraTrainer._save_checkpoint = plain  # type: ignore[method-assign]
    assert finetuner.peft_model is not None
    trained, _ = finetuner.peft_model.get_nb_trainable_parameters()
    size = sum(path.stat().st_size for path in (out / f"checkpoint-{STEPS}").iterdir())
    wait, write = statistics.median(waits), statistics.median(writes)
    cells = [Path(model).name, f"{trained:,}", f"{wait * 1e3:.0f} ms", f"{write * 1e3:.0f} ms", f"{size / 1e6:.1f} MB"]
    return f"| {' | '.join(cells)} | {step:.2f} s |"


def resume_lft(model: Path, rows: int, step: int, folder: Path) -> float:
    """Seconds to the first step after `step`."""
    out = folder / "own"
    data = rows_of(rows)
    if not (out / "checkpoint-1").exists():
        train_own(model, out, data, TrainingSettings(max_steps=1, save_every=1), FirstStep(), None)
    checkpoint = moved_to(out / "checkpoint-1", folder / f"checkpoint-{step}", step)
    first = FirstStep()
    train_own(model, folder / "own-again", data, TrainingSettings(num_epochs=1, save_every="10min"), first, checkpoint)
    return first.seconds


def train_own(
    model: Path, out: Path, data: Dataset, settings: TrainingSettings, first: FirstStep, resume_from: Path | None
) -> None:
    """One life of a run of lft's."""
    finetuner = LLMFineTuner(str(model), str(out))
    finetuner.announce = lambda _line: None
    finetuner.load_model()
    finetuner.setup_lora(r=4)
    first.started = time.process_time()
    finetuner.train(
        data,
        1,
        1,
        settings=settings,
        gradient_accumulation_steps=1,
        callbacks=[first],
        resume_from=resume_from,
    )


def moved_to(checkpoint: Path, folder: Path, step: int) -> Path:
    """A copy of a checkpoint that says it is of another step: its weights do not matter here."""
    folder.mkdir(exist_ok=True)
    for path in checkpoint.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    state = read_state(folder).model_copy(update={"step": step, "schedule_steps": step, "last_logged": step})
    (folder / STATE).write_text(state.model_dump_json(), encoding="utf-8")
    manifest = Manifest.load(folder)
    files = manifest.files | {STATE: FileDigest.of(folder / STATE)}
    manifest.model_copy(update={"step": step, "files": files}).save(folder)
    return folder


def resume_trainer(model: Path, rows: int, step: int, folder: Path) -> float:
    """The same with the Trainer's own checkpoint and resume."""
    out = folder / "theirs"
    data = rows_of(rows)
    if not (out / "checkpoint-1").exists():
        trainer_of(model, out, data, 1, FirstStep()).train()
    state = out / "checkpoint-1" / "trainer_state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"global_step": step}), encoding="utf-8")
    first = FirstStep()
    trainer = trainer_of(model, out, data, -1, first)
    trainer.train(resume_from_checkpoint=str(out / "checkpoint-1"))
    return first.seconds


def trainer_of(model: Path, out: Path, data: Dataset, max_steps: int, first: FirstStep) -> Trainer:
    """A plain Trainer with peft's LoRA; the time of `first` begins when the model is loaded."""
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = get_peft_model(base, LoraConfig(r=4, task_type="CAUSAL_LM"))
    first.started = time.process_time()
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=max_steps,
        num_train_epochs=1,
        per_device_train_batch_size=1,
        save_steps=1 if max_steps == 1 else 10**9,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    return Trainer(adapted, arguments, train_dataset=data, callbacks=[first])


if __name__ == "__main__":
    main()
