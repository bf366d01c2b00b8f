"""The fault table: each fault done to a real run of two CPU ranks, what the launcher said last, and how it all ended.

`python -m benchmarks.faults` prints all of them as a Markdown table, some 15 s each; `python -m benchmarks.faults WORD`
those whose name contains a word.
"""

import re
import sys
import tempfile
import time
from pathlib import Path

from tests.conftest import demo_lines, make_llama
from tests.faults.faults import Run, end, faulty_model, settings, start
from tests.faults.scenarios import SCENARIOS, play

AT_ONCE = 10
MOST_CHARACTERS = 130
OWN_WORDS = re.compile(r"  \S|    \S+(Error|Exit|error): ")
"""What lft says itself, and the error; not the calls."""


def main(words: list[str]) -> None:
    """Print the table."""
    print("| fault | the last lines say | exit | stopped after | processes left |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model, data = prepare(scratch)
        for number, scenario in enumerate(SCENARIOS):
            if all(word in scenario.name for word in words):
                (scratch / str(number)).mkdir()
                run = play(scenario, model, data, scratch / str(number))
                row(scenario.name, said(run), str(run.exit_code), f"{run.seconds:.1f} s", len(run.left))
        if all(word in "ten launches at once" for word in words):
            runs, seconds = launch_at_once(model, data, scratch)
            codes = sorted({run.exit_code for run in runs})
            left = sum(len(run.left) for run in runs)
            row(f"{AT_ONCE} launches started at once", said(runs[-1]), f"all {codes}", f"{seconds:.0f} s in all", left)


def prepare(scratch: Path) -> tuple[Path, Path]:
    """A tiny Llama with a fault in it, and data."""
    make_llama(scratch / "llama")
    data = scratch / "rows.jsonl"
    data.write_text("\n".join(demo_lines(60)) + "\n", encoding="utf-8")
    return faulty_model(scratch / "llama", scratch / "model"), data


def launch_at_once(model: Path, data: Path, scratch: Path) -> tuple[list[Run], float]:
    """Start runs of two ranks at the same moment, and wait for all."""
    began, runs = time.monotonic(), []
    for number in range(AT_ONCE):
        folder = scratch / f"at-once-{number}"
        folder.mkdir()
        values = settings(model, data, folder / "out")
        values["training"]["max_steps"] = 4
        runs.append(start(folder / "run.yaml", values, {}))
    ended = [end(run) for run in runs]
    return ended, time.monotonic() - began


def said(run: Run) -> str:
    """What the launcher said after the last progress, without the paths of this machine."""
    lines = run.text.replace(str(run.run_dir.output_dir), "RUN").splitlines()
    last = [index for index, line in enumerate(lines) if line.startswith(("  stage", "  training", "  saved"))]
    kept = [line.strip() for line in lines[last[-1] + 1 :] if OWN_WORDS.match(line)] if last else []
    return "<br>".join(line[:MOST_CHARACTERS].replace("|", "\\|") for line in kept)


def row(*cells: object) -> None:
    """One line of the table, at once."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
