"""lft selftest preempt: a small run is stopped as a scheduler stops it and continued; does it end as one left alone does?"""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from lft.core.checkpoints import complete, step_of
from lft.core.errors import DONE, SAVED, TRAINING, LftError
from lft.core.rank import CACHE, clean_environment
from lft.core.run_dir import RunDir
from lft.launch.resuming import steps_done

STEPS, MOST_STEPS = 60, 1000
POLL_SECONDS = 0.01
LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Launch:
    """One `lft launch` that has ended."""

    exit_code: int
    seconds: float
    to_the_end: float = 0.0
    """Seconds from the signal to its exit."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The folder in which runs of one command are made, and how they are asked for."""

    folder: Path
    options: tuple[str, ...]
    steps: int

    def command(self, name: str) -> list[str]:
        """What is typed for the run `name`: the same each time."""
        words = ["launch", str(self.folder / "run.yaml"), "--output-dir", str(self.folder / name), *self.options]
        return [sys.executable, "-m", "lft.cli.main", *words, "--set", f"training.max_steps={self.steps}"]

    def launch(self, name: str, stop_when: Callable[[], bool] = lambda: False) -> Launch:
        """Launch it and wait for its end; send SIGTERM once, when it is time. Nothing of it outlives this call."""
        environment = clean_environment() | {CACHE: str(self.folder / "cache")}
        started, sent = time.monotonic(), 0.0
        with (self.folder / f"{name}.out").open("ab") as output:
            process = subprocess.Popen(self.command(name), stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            while process.poll() is None:
                if not sent and stop_when():
                    sent = time.monotonic()
                    process.send_signal(signal.SIGTERM)
                time.sleep(POLL_SECONDS)
        finally:
            process.kill()  # its ranks die with it
            process.wait()
        now = time.monotonic()
        return Launch(process.returncode, now - started, now - sent if sent else 0.0)

    def adapter(self, name: str) -> Path:
        """The weights a run ended with."""
        return self.folder / name / "adapter_model.safetensors"


@click.command("preempt")
@click.option("--gpus", metavar="N|auto", help="GPUs to use; 0 runs on the CPU.")
@click.option("--cpu-procs", metavar="N|auto", help="Ranks on the CPU.")
@click.option("--strategy", metavar="NAME", help="How ranks share the work: single, ddp, zero2, zero3, fsdp.")
@click.option("--keep", is_flag=True, help="Keep the folder it works in.")
def command(gpus: str | None, cpu_procs: str | None, strategy: str | None, keep: bool) -> int:
    """Stop a small run with SIGTERM, type the same command again, and compare the adapter with an undisturbed run's.

    It takes about a minute, in a temporary folder. Exit code 0: the same, bit for bit; 64: not so.

    \b
    lft selftest preempt --cpu-procs 2 --strategy zero3
    """
    given = {"--gpus": gpus, "--cpu-procs": cpu_procs, "--strategy": strategy}
    options = tuple(word for name, value in given.items() if value is not None for word in (name, value))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended
    folder = Path(tempfile.mkdtemp(prefix="lft-selftest-"))
    is_fine = False
    try:
        is_fine = _try(folder, options)
    finally:
        if keep or not is_fine:
            click.echo(f"  kept       {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return DONE if is_fine else TRAINING


def _try(folder: Path, options: tuple[str, ...]) -> bool:
    """The whole trial, told as it goes; whether both runs end alike."""
    from lft.demo.tiny import make_tiny  # with numpy and safetensors, which --help need not wait for

    model, data = make_tiny(folder)
    click.echo("  model      random weights, 0.1 M parameters, and 60 rows, made here")
    settings = {
        "model": {"name": str(model)},
        "data": {"source": str(data), "held_out": 0, "max_length": 32},
        "training": {"batch_size": 1, "global_batch_size": 12, "learning_rate": 0.01, "save_every": MOST_STEPS},
        "launch": {"precision": "fp32"},
    }
    (folder / "run.yaml").write_text(json.dumps(settings), encoding="utf-8")
    trial = Trial(folder, options, STEPS)
    while True:
        last = _stop_and_go_on(trial)
        if last is not None or trial.steps >= MOST_STEPS:
            break
        trial = Trial(folder / f"{4 * trial.steps} steps", options, 4 * trial.steps)
        trial.folder.mkdir()
        shutil.copy(folder / "run.yaml", trial.folder)
        click.echo(f"  again      the run was over before the signal was heard; with {trial.steps} steps")
    if last is None:
        raise LftError("the run was over before the signal was heard, every time")
    _do(trial, "undisturbed", DONE, "one run of the same steps")
    return _compare(trial, last)


def _stop_and_go_on(trial: Trial) -> int | None:
    """Stop a run in its midst and go on with it; the last step before the stop, or None where it was over too soon."""
    run_dir, third = RunDir(trial.folder / "interrupted"), trial.steps // 3

    def is_time() -> bool:
        attempts = run_dir.attempts()
        return bool(attempts) and steps_done(attempts[-1]) >= third

    click.echo(f"  command    lft {shlex.join(trial.command('interrupted')[3:])}")
    stopped = trial.launch("interrupted", is_time)
    if stopped.exit_code == DONE:
        return None
    _expect(trial, "interrupted", stopped, SAVED)
    saved = step_of(complete(run_dir.output_dir)[-1])
    took = f"SIGTERM at step {third} or just after, ended {stopped.to_the_end:.1f} s later with checkpoint-{saved}"
    _tell("interrupted", stopped, took)
    _do(trial, "interrupted", DONE, f"the same command again: steps {saved + 1} to {trial.steps}", shown="continued")
    return saved


def _do(trial: Trial, name: str, exit_code: int, words: str, shown: str = "") -> None:
    done = trial.launch(name)
    _expect(trial, name, done, exit_code)
    _tell(shown or name, done, words)


def _tell(name: str, launch: Launch, words: str) -> None:
    click.echo(f"  {name:<12} exit {launch.exit_code:>2} after {launch.seconds:5.1f} s   {words}")


def _expect(trial: Trial, name: str, launch: Launch, exit_code: int) -> None:
    """Raise LftError, with the end of what it said, where a launch ended otherwise."""
    if launch.exit_code != exit_code:
        path = trial.folder / f"{name}.out"
        said = "\n    ".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])
        message = f"the {name} run ended with exit code {launch.exit_code} instead of {exit_code}:\n    {said}"
        error = LftError(message, next_step=f"see {path}")
        error.exit_code = TRAINING
        raise error


def _compare(trial: Trial, last: int) -> bool:
    from safetensors.numpy import load_file

    one, other = (load_file(trial.adapter(name)) for name in ("undisturbed", "interrupted"))
    differing = [name for name in one if name not in other or one[name].tobytes() != other[name].tobytes()]
    if one.keys() == other.keys() and not differing:
        click.echo(f"  adapters   {len(one)} tensors, the same bits in each")
        click.echo(f"  verdict    a run stopped after step {last} and continued ends as one that was left alone")
        return True
    largest = max((abs(one[name] - other[name]).max() for name in differing if name in other), default=0.0)
    click.echo(f"  adapters   {len(differing)} of {len(one)} tensors differ, by {largest:.2g} at most")
    click.echo(f"  verdict    a run stopped after step {last} and continued does not end as one that was left alone")
    return False
