"""Rows a second and memory of data preparation: lft beside the raw tokenizer and TRL, in turn, in one run.

    python -m benchmarks.data_prep [--rows 20000 1000000] [--repeats 3] [--cores 2] [--model FOLDER] [--trl PYTHON]

Every measurement is a process of its own, which has imported its libraries and loaded the tokenizer before the clock starts:

    raw         tokenizers.encode_batch_fast on texts rendered before
    lft         the data stage with an empty cache: from the file of chats to token shards, split, and packed
    lft again   the same with the cache that left, imports included: the whole command
    trl         the construction of trl's SFTTrainer with a tiny random model, on rows read before; with one and two processes,
                with and without packing, of which the best counts

Rows are WordNet definitions as chats, repeated with a counter so that all differ. "a CPU second" is rows over the CPU time of
all processes, which other work on the machine disturbs less than the clock. Memory is the most that the process and all it
started held at once, looked at four times a second: resident, and of that anonymous (not the pages of mapped files).

TRL needs an environment of its own, here with the packages of this one beside it:

    python -m venv trl-env && trl-env/bin/pip install --no-deps trl==1.16.0
    python -c 'import site; print(*site.getsitepackages())' > trl-env/lib/python3.11/site-packages/beside.pth
    python -m benchmarks.data_prep --trl trl-env/bin/python
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
MAX_LENGTH = 512
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""For all contenders: without the system prompt of the model's own, which lft would tokenize once and the others each time."""
RAW_BATCH = 1000
LOOK_SECONDS = 0.25
TRL_ROWS = 100_000
"""More take minutes, and are no faster a row."""
Measured = dict[str, float]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--model", help="a folder with a tokenizer; default: the demo's model")
    parser.add_argument("--trl", help="the Python of an environment with trl")
    parser.add_argument("--contenders", nargs="+", help="only these")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)  # contender, rows file, number of processes
    options = parser.parse_args()
    if options.child:
        name, file, processes = options.child
        CHILDREN[name.split()[0]](name, Path(file), options.model, int(processes))
        return
    model = options.model or demo_model()
    for count in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            file = write_chats(Path(folder) / "chats.jsonl", count)
            print_table(count, run_all(options, model, file, count), options.repeats)


def demo_model() -> str:
    """The folder of the demo's model, converted where that was not done."""
    from lft.core.console import say
    from lft.demo import demo_settings
    from lft.train.model import resolve_model

    return resolve_model(str(demo_settings()["model.name"]), say)


def write_chats(path: Path, count: int) -> Path:
    """`count` chats, no two alike."""
    lines = (REPOSITORY / "lft" / "demo" / "wordnet.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            row = rows[number % len(rows)]
            turns = [("user", f"{number}. {row['prompt']}"), ("assistant", row["completion"])]
            stream.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}) + "\n")
    return path


def run_all(options: argparse.Namespace, model: str, file: Path, count: int) -> dict[str, list[Measured]]:
    """Every contender in turn, and again; the first turn also fills the file cache."""
    trl = [f"trl {kind} x{procs}" for kind in ("plain", "packed") for procs in (1, 2)]
    names = ["raw", "lft", "lft again", *(trl if options.trl and count <= TRL_ROWS else [])]
    measured: dict[str, list[Measured]] = {name: [] for name in options.contenders or names}
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as scratch:
            for name, found in measured.items():
                python = options.trl if name.startswith("trl") else sys.executable
                found.append(measure(name, python, model, file, options.cores, Path(scratch)))
                print(f"  {count:,} {name}: {count / found[-1]['seconds']:,.0f} rows/s", file=sys.stderr, flush=True)
    return measured


def measure(name: str, python: str, model: str, file: Path, cores: int, scratch: Path) -> Measured:
    """One process; `lft again` finds in `scratch` what `lft` left there."""
    command = [python, __file__, "--model", model, "--child", name, str(file), str(cores)]
    # datasets keeps what it maps, and would find it again
    own = {"LFT_CACHE": scratch / "lft", "HF_HOME": scratch / name.replace(" ", "-"), "PYTHONPATH": REPOSITORY}
    settled = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(cores)}
    environment = os.environ | {key: str(value) for key, value in own.items()} | settled
    if name.startswith("lft"):
        del environment["RAYON_NUM_THREADS"]  # lft decides it
    started = time.perf_counter()
    with (scratch / "errors.txt").open("w") as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        peaks = watch(process)
    assert process.stdout is not None
    output = process.stdout.read()
    if process.returncode:
        sys.exit(f"{name} failed:\n{(scratch / 'errors.txt').read_text()}")
    found: Measured = json.loads(output.splitlines()[-1])
    whole = {"seconds": time.perf_counter() - started} if name == "lft again" else {}
    return found | whole | peaks


def watch(process: subprocess.Popen[str]) -> Measured:
    """Until it ends: the most memory it and all it started held at once, in bytes."""
    import psutil

    tree, resident, anonymous = psutil.Process(process.pid), 0, 0
    while process.poll() is None:
        try:
            pids = [process.pid, *(child.pid for child in tree.children(recursive=True))]
        except psutil.NoSuchProcess:
            break
        held = [memory_of(pid) for pid in pids]
        resident = max(resident, sum(each[0] for each in held))
        anonymous = max(anonymous, sum(each[1] for each in held))
        time.sleep(LOOK_SECONDS)
    process.wait()
    return {"resident": resident, "anonymous": anonymous}


def memory_of(pid: int) -> tuple[int, int]:
    """Resident bytes, each shared page counted as its share, and anonymous ones of a process; zeros where it has gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith("kB")}
    return sizes.get("Pss", 0), sizes.get("Pss_Anon", sizes.get("Anonymous", 0))


def timed(work: Callable[[], Any]) -> None:
    """Do it, and print the seconds and the CPU seconds of this process and of those it started."""
    cpu, started = cpu_seconds(), time.perf_counter()
    work()
    print(json.dumps({"seconds": time.perf_counter() - started, "cpu_seconds": cpu_seconds() - cpu}))


def cpu_seconds() -> float:
    """Of this process and of those it started and waited for."""
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def child_raw(_name: str, file: Path, model: str, _processes: int) -> None:
    """The Rust tokenizer alone."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    backend = tokenizer.backend_tokenizer
    with file.open(encoding="utf-8") as lines:
        texts = [str(tokenizer.apply_chat_template(json.loads(line)["messages"], tokenize=False)) for line in lines]

    def encode() -> None:
        for start in range(0, len(texts), RAW_BATCH):
            backend.encode_batch_fast(texts[start : start + RAW_BATCH], add_special_tokens=False)

    timed(encode)


def child_lft(name: str, file: Path, model: str, processes: int) -> None:
    """What `lft data prepare` does."""
    from lft.cli.preparing import prepare_here
    from lft.core.rank import Rank, tokenize_serially
    from lft.core.settings import RunSettings
    from lft.data.packing import pack
    from lft.data.prepare import Work, prepare

    data = {"source": str(file), "max_length": MAX_LENGTH, "held_out": 0, "packing": True, "chat_template": TEMPLATE}
    settings = RunSettings.model_validate({"model": {"name": model}, "data": data})
    if name == "lft again":
        timed(lambda: prepare_here(settings))
        return
    import lft.data.token_block  # noqa: F401  which is imported where tokens are made
    from lft.train.model import tokenizer_loader

    tokenize_serially()
    load = tokenizer_loader(settings.model, print)
    load()
    work = Work(Rank(), print, processes)

    def prepare_and_pack() -> None:
        rows = prepare(settings.model, settings.data, load, work).training
        pack(rows.lengths, MAX_LENGTH, settings.training.seed)

    timed(prepare_and_pack)


def child_trl(name: str, file: Path, model: str, _processes: int) -> None:
    """What SFTTrainer does before it can train."""
    from datasets import Dataset
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    _, kind, procs = name.split()
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = TEMPLATE
    rows = Dataset.from_list([json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()])
    shape: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    tiny = LlamaForCausalLM(
        LlamaConfig(**shape, vocab_size=len(tokenizer), num_attention_heads=1, num_key_value_heads=1)
    )
    with tempfile.TemporaryDirectory() as output_dir:
        arguments = SFTConfig(
            output_dir=output_dir,
            max_length=MAX_LENGTH,
            packing=kind == "packed",
            dataset_num_proc=None
            if procs == "x1"
            else int(procs.removeprefix("x")),  # with 1 it starts a process for it
            report_to=[],
            use_cpu=True,
            bf16=False,
        )
        timed(lambda: SFTTrainer(tiny, args=arguments, train_dataset=rows, processing_class=tokenizer))


CHILDREN: dict[str, Callable[[str, Path, str, int], None]] = {"raw": child_raw, "lft": child_lft, "trl": child_trl}


def print_table(count: int, measured: dict[str, list[Measured]], repeats: int) -> None:
    """Medians, and ratios to lft and to the raw tokenizer."""
    print(f"\n{count:,} rows, medians of {repeats} in turn\n")
    print(
        "| what | seconds | rows/s | min to max | rows a CPU second | of raw | of raw, CPU | resident MB | anonymous MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for line in table_lines(count, measured):
        print(line)
    speed = {name: count / statistics.median(each["seconds"] for each in found) for name, found in measured.items()}
    best = max((name for name in speed if name.startswith("trl")), key=speed.__getitem__, default=None)
    if "lft" in speed and best:
        cpu = [statistics.median(each["cpu_seconds"] for each in measured[name]) for name in (best, "lft")]
        print(
            f"\nlft: {speed['lft'] / speed[best]:.1f} times the rows/s of {best}, {cpu[0] / cpu[1]:.1f} times by CPU time"
        )


def table_lines(count: int, measured: dict[str, list[Measured]]) -> Iterator[str]:
    """A line for each contender."""
    median = {
        name: {key: statistics.median(each[key] for each in found) for key in found[0]}
        for name, found in measured.items()
    }
    raw = median.get("raw")
    for name, value in median.items():
        speeds = [count / each["seconds"] for each in measured[name]]
        ratios = ["" if raw is None else f"{raw[key] / value[key]:.2f}" for key in ("seconds", "cpu_seconds")]
        yield (
            f"| {name} | {value['seconds']:.2f} | {count / value['seconds']:,.0f} | {min(speeds):,.0f} to {max(speeds):,.0f} "
            f"| {count / value['cpu_seconds']:,.0f} | {ratios[0]} | {ratios[1]} "
            f"| {value['resident'] / 1e6:,.0f} | {value['anonymous'] / 1e6:,.0f} |"
        )


if __name__ == "__main__":
    main()
