"""What a test does in place of a documented command, each with its reason. What is not listed here is run as it stands.

The file is also the `lft` of the pages: `python stand_ins.py VERB ...` runs the verb, or does what the table says.
"""

import os
import sys

import click

from lft.cli.main import cli, run

HUB_MODELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": "llama",
    "HuggingFaceTB/SmolLM2-135M": "gpt2",
}
"""Models that pages name, and the tiny model (tests/conftest.py) that the local Hub serves by that name."""

OTHER_PROGRAMS = {
    "pip": "installs; tests/test_package.py does so",
    "hf": "asks for a token; the local Hub's is in the environment",
    "torchrun": "tests/train/test_launchers.py",
    "accelerate": "tests/train/test_launchers.py",
    "deepspeed": "tests/train/test_launchers.py",
    "tensorboard": "serves until it is stopped",
}
"""Programs that are not run, and why, or which test runs them."""

ONLY_PARSED = {
    "stop": "no run is under way; tests/cli/test_verbs.py stops one",
    "doctor": "with --slurm it needs an allocation, which tests/slurm_cluster has; without, tests/doctor runs it",
    "sweep": "trains many runs; tests/cli/test_sweep.py does so",
    "selftest": "tests/cli/test_selftest.py runs it",
    "chat": "talks with a terminal; has its own tests",
    "init": "asks questions; has its own tests",
    "report": "may open a browser; has its own tests",
}
"""Verbs whose arguments are checked by their click commands, and that are not carried out."""

INSTEAD = {
    "launch": (
        ("--dry-run", "--resume", "never"),
        "planned as a run that begins; docs/usage.md and docs/examples.md train",
    ),
    "plan": (("--resume", "never"), "pages show alternatives, which are not one run that goes on"),
    "submit": (("--script-only",), "there is no SLURM here; tests/slurm_cluster submits"),
}
"""Verbs that are carried out with these options added, outside the pages that train."""

NOT_RUN = {
    ("README.md", "scripts/demo"): "installs; continuous integration runs scripts/test, which does the same",
    ("CONTRIBUTING.md", "scripts/check"): "what continuous integration runs",
    (
        "docs/guide.md",
        'eval "$(lft completion bash)"        # in ~/.bashrc',
    ): "lines for three shells; tests/cli/test_completion.py gives each to its own",
    (
        "docs/guide.md",
        "lft launch run.yaml --nodes 2",
    ): "two machines; tests/faults/test_together.py runs two launchers",
}
"""Blocks that are not run: page and first words, and why."""


def check_arguments(words: list[str]) -> None:
    """Have click judge a command line without carrying it out. Raises click.UsageError."""
    command: click.Command = cli
    context = click.Context(cli, info_name="lft")
    while isinstance(command, click.Group):
        if not words:
            raise click.UsageError("a command is missing", context)
        found = command.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"there is no command {words[0]}", context)
        command, words = found, words[1:]
    command.make_context(command.name, list(words))


def main(words: list[str]) -> int:
    """Carry out a documented command, or what stands in for it."""
    verb = words[0] if words else ""
    trains = os.environ.get("DOCUMENTED_RUNS_TRAIN") == "yes"
    if "--help" in words or "-h" in words:
        return run(words)
    if verb in ONLY_PARSED:
        check_arguments(words)
        return 0
    if verb in ("resume", "benchmark") and not trains:
        check_arguments(words)
        return 0
    if verb == "submit" or (verb in INSTEAD and not trains):
        more, _ = INSTEAD[verb]
        return run([*words, *(() if set(more) & set(words) else more)])
    return run(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
