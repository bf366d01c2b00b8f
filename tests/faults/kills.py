"""Kills a run at random moments, again and again, with the same command in between; it must end as if nothing had happened.

    python -m tests.faults.kills FOLDER [--strategy ddp zero2 ...] [--ranks 2] [--kills 10] [--seed 0]

Each kill is a SIGKILL of the launcher or of a rank, at a moment drawn from MOMENTS. After each one nothing may be left running,
no checkpoint that was told of may be lost, and the one that would be gone on from must verify. At the end the adapter's file
must be that of a run that was left alone, byte for byte.
"""

import argparse
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lft.core.checkpoints import complete, problem, step_of
from lft.core.events import EventTail
from lft.core.settings import Strategy
from tests.conftest import demo_lines, make_llama
from tests.faults.faults import POLL_SECONDS, Run, end, faulty_model, settings, start
from tests.local_hub import LocalHub

MOMENTS = ("load", "step", "save", "evaluation", "benchmark", "upload")
LOADING = ("loading libraries", "preparing data", "joining the other ranks", "loading the model")
STRATEGIES: tuple[Strategy, ...] = ("single", "ddp", "zero2", "zero3", "fsdp")
STEPS = 60
FAST_POLL_SECONDS = 0.001
TOKEN = "hf_of_the_kills"


@dataclass(frozen=True)
class Kill:
    """What was killed, when, and how far the run was."""

    moment: str
    victim: str
    step: int
    missed: bool
    """The run had ended before the moment came."""


@dataclass
class Story:
    """A run that was killed again and again, and what was wrong about it."""

    strategy: Strategy
    kills: list[Kill] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    launches: int = 0


def tell(strategy: Strategy, ranks: int, kills: int, seed: int, folder: Path, hub: LocalHub) -> Story:
    """One run, killed so often, and compared with one left alone."""
    chance = random.Random(f"{strategy}-{ranks}-{seed}")
    whole, killed = (_values(folder, name, strategy, ranks, hub) for name in ("whole", "killed"))
    story = Story(strategy)
    left_alone = _launch(folder / "whole.json", whole)
    if end(left_alone).exit_code != 0:
        raise RuntimeError(left_alone.text)
    planned = [MOMENTS[number % len(MOMENTS)] for number in range(kills)]
    planned.sort(key=lambda moment: MOMENTS.index(moment) // 4)  # benchmark and upload come after training
    order = planned[: sum(moment in MOMENTS[:4] for moment in planned)]
    chance.shuffle(order)
    for moment in [*order, *planned[len(order) :]]:
        run = _launch(folder / "killed.json", killed)
        story.launches += 1
        told = EventTail(run.run_dir.events)
        story.kills.append(_strike(run, moment, ranks, chance))
        end(run)
        story.wrong += _what_is_wrong(run, told)
    last = end(_launch(folder / "killed.json", killed))
    story.launches += 1
    if last.exit_code != 0:
        story.wrong.append(f"the last launch ended with {last.exit_code}: {last.text[-2000:]}")
    outcome = [Path(values["output_dir"]) / "adapter_model.safetensors" for values in (whole, killed)]
    if not all(path.exists() for path in outcome) or outcome[0].read_bytes() != outcome[1].read_bytes():
        story.wrong.append("the adapter is not that of the run that was left alone")
    if ("models", f"tests/{strategy}-killed") not in hub.store.repositories:
        story.wrong.append("nothing was uploaded")
    return story


def _values(folder: Path, name: str, strategy: Strategy, ranks: int, hub: LocalHub) -> dict[str, Any]:
    """60 steps of 50 ms with dropout, a checkpoint every 3, the held-out loss every 4, a benchmark and an upload."""
    values = settings(folder / "model", folder / "rows.jsonl", folder / name, strategy=strategy, cpu_procs=ranks)
    values["data"] |= {"held_out": 8}
    values["lora"] |= {"lora_dropout": 0.1}
    values["training"] |= {"max_steps": STEPS, "save_every": 3, "evaluate_every": 4, "global_batch_size": 12}
    values["benchmark"] = {"num_prompts": 6, "max_new_tokens": 24, "batch_size": 1}
    values["upload"] = {"repo_name": f"tests/{strategy}-{name}", "create_new": True}
    return values


def _launch(run_file: Path, values: dict[str, Any]) -> Run:
    return start(run_file, values, {"kind": "none", "ranks": [], "step": 0, "slow_seconds": 0.05})


def _strike(run: Run, moment: str, ranks: int, chance: random.Random) -> Kill:
    """Wait for the moment, and a random while, and kill."""
    victim = chance.choice(["launcher", *(f"rank {rank}" for rank in range(ranks))])
    victim = "launcher" if moment == "upload" else victim
    rank = 0 if victim == "launcher" else int(victim.removeprefix("rank "))
    wanted = _moment(run, moment, rank, chance)
    while run.process.poll() is None and not wanted():
        time.sleep(FAST_POLL_SECONDS if moment in ("save", "evaluation", "upload") else POLL_SECONDS)
    time.sleep(chance.random() * (0.02 if moment in ("save", "upload") else 0.2))
    step = run.beat(rank).step or 0
    missed = run.process.poll() is not None
    pid = run.process.pid if victim == "launcher" else run.pids().get(rank, run.process.pid)
    if not missed:
        run.hit = time.monotonic()
        os.kill(pid, signal.SIGKILL)
    return Kill(moment, victim, step, missed)


def _moment(run: Run, moment: str, rank: int, chance: random.Random) -> Any:
    """A question that is answered with yes when the moment has come in this launch."""
    attempts = len(run.run_dir.attempts())

    def stage_is(names: Iterable[str]) -> bool:
        return len(run.run_dir.attempts()) > attempts and run.beat(rank).stage in names

    if moment == "load":
        stage = chance.choice(LOADING)
        return lambda: stage_is([stage, "training"])
    if moment == "step":
        further = chance.randint(1, STEPS // 6)
        newest = max((step_of(path) for path in complete(run.run_dir.output_dir)), default=0)
        return lambda: stage_is(["training", "evaluating"]) and (run.beat(rank).step or 0) >= newest + further
    if moment == "save":
        return lambda: any(run.run_dir.output_dir.glob(".checkpoint-*"))
    names = {"evaluation": ["evaluating"], "benchmark": ["answering", "scoring"], "upload": ["uploading"]}[moment]
    return lambda: stage_is(names)


def _what_is_wrong(run: Run, told: EventTail) -> list[str]:
    """After a kill: processes that are left, checkpoints that were told of and are gone, none that verifies."""
    wrong = [f"processes {run.left} were left running"] if run.left else []
    saved = [event.data["step"] for event in told.new_events() if event.kind == "saved"]
    whole = [step_of(path) for path in complete(run.run_dir.output_dir) if not problem(path)]
    if saved and (not whole or max(whole) < max(saved)):
        wrong.append(f"checkpoint-{max(saved)} was told of, and the newest that verifies is {max(whole, default=None)}")
    damaged = {path.name: problem(path) for path in complete(run.run_dir.output_dir) if problem(path)}
    return wrong + [f"{name} {what}" for name, what in damaged.items()]


def make_material(folder: Path) -> None:
    """Model and rows."""
    make_llama(folder / "llama")
    faulty_model(folder / "llama", folder / "model")
    (folder / "rows.jsonl").write_text("\n".join(demo_lines(120)), encoding="utf-8")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--strategy", nargs="+", choices=STRATEGIES, default=STRATEGIES)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| strategy | ranks | kills | moments | victims | launches | wrong |\n|---|---|---|---|---|---|---|")
    with LocalHub({TOKEN: "tests"}) as hub:
        os.environ |= hub.environment(options.folder / "home", TOKEN)
        for strategy in options.strategy:
            ranks = 1 if strategy == "single" else options.ranks
            folder = options.folder / f"{strategy}-{ranks}-{options.seed}"
            shutil.rmtree(folder, ignore_errors=True)
            make_material(folder)
            story = tell(strategy, ranks, options.kills, options.seed, folder, hub)
            done = [kill for kill in story.kills if not kill.missed]
            moments, victims = Counter(kill.moment for kill in done), Counter(kill.victim for kill in done)
            cells = [strategy, ranks, len(done), _counts(moments), _counts(victims), story.launches]
            print("|", *(f"{cell} |" for cell in cells), "; ".join(story.wrong) or "nothing", "|", flush=True)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.items())


if __name__ == "__main__":
    main()
