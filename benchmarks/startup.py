"""How long `lft --help` takes, next to `accelerate launch --help`: whole processes, run in turn, medians.

    python benchmarks/startup.py [RUNS]

Both print help and exit; accelerate imports torch to parse its arguments.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("lft", "--help"),
    ("accelerate", "launch", "--help"),
    ("python", "-c", "pass"),
)


def seconds(command: tuple[str, ...]) -> float:
    """Wall-clock time of one run."""
    program = Path(sys.executable).parent / command[0]
    started = time.perf_counter()
    subprocess.run([program, *command[1:]], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Print a table, and the ratio of the first two."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    for command in COMMANDS:
        seconds(command)  # fills the file cache
    times = [[seconds(command) for command in COMMANDS] for _ in range(runs)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    for command, column, median in zip(COMMANDS, zip(*times, strict=True), medians, strict=True):
        print(f"{' '.join(command):28} median {median:.3f} s   min {min(column):.3f}   max {max(column):.3f}")
    print(f"ratio {medians[1] / medians[0]:.1f} ({runs} runs each, in turn)")


if __name__ == "__main__":
    main()
