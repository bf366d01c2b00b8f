"""lft submit: check a run, have SLURM judge its script, submit it."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click
import yaml

from lft.cli.job_story import goes_on, newest_job, told_job, told_time
from lft.cli.options import FLAGS, job_options, plan_options, settings_from
from lft.cli.story import typed
from lft.core.errors import SAVED, PreflightError, SettingsError
from lft.core.gpus import Gpu
from lft.core.hardware import Machine
from lft.core.model_facts import ModelFacts, UnknownModel, read_model_facts
from lft.core.rank import secret_names
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.launch.follow import is_alive, is_trained
from lft.launch.slurm import judge, requeues_by_exit_code, submit
from lft.launch.submission import job_ids, note_job, write_job, write_sweep
from lft.plan.launch_plan import make_plan
from lft.plan.sbatch_script import job_shape

PLENTY_BYTES = 2**50
"""Of memory, for a plan that is only to be checked: what the nodes have is known there."""


@click.command("submit")
@plan_options
@job_options
@click.option(
    "--after", metavar="DIR", multiple=True, type=click.Path(path_type=Path), help="Start when that run is done."
)
@click.option("--array", metavar="FILE", type=click.Path(path_type=Path), help="Sweep: a list of settings, a run each.")
@click.option("--script-only", is_flag=True, help="Write the batch script and stop.")
def command(
    run_file: Path | None,
    demo: bool,
    sets: tuple[str, ...],
    after: tuple[Path, ...],
    array: Path | None,
    script_only: bool,
    **flags: Any,
) -> None:
    """Submit a run to SLURM; GPUs and CPU ranks count per node.

    \b
    lft submit run.yaml --nodes 2 --gpus 8 --time 4:00:00
    """
    settings = settings_from(run_file, demo, sets, flags)
    elements = []
    for number, changes in enumerate(read_sweep(array) if array else []):
        more = tuple(f"{key}={json.dumps(value)}" for key, value in changes.items())
        inner = flags | {"output_dir": str(settings.output_dir / str(number))}
        elements.append((changes, settings_from(run_file, demo, sets + more, inner)))
    for each in [element for _, element in elements] or [settings]:
        check(each, UnknownModel() if script_only else read_model_facts(each.model))
    requeue_exit = not script_only and requeues_by_exit_code(SAVED)
    if elements:
        script = write_sweep(settings, elements, sys.executable, requeue_exit=requeue_exit)
    else:
        script = write_job(settings, sys.executable, requeue_exit=requeue_exit)
    if script_only:
        click.echo(f"  script     {script}")
        click.echo(f"  next       cd {shlex.quote(str(script.parent))} && sbatch {script.name}")
        return
    send(settings, script, [_job_of(each) for each in after if not _is_done(each)], len(elements))


def check(settings: RunSettings, model: ModelFacts | UnknownModel) -> None:
    """Whatever can be known to be wrong before there are nodes. Raises SettingsError or PreflightError."""
    shape = job_shape(settings)
    gpu = Gpu(token="0", name="GPU", memory_bytes=PLENTY_BYTES, computes_bf16=True)
    nodes = Machine(
        gpus=tuple(gpu.model_copy(update={"token": str(number)}) for number in range(shape.gpus)),
        cpu_cores=shape.cpus,
        memory_bytes=PLENTY_BYTES,
        cpu_computes_bf16=True,
        has_deepspeed=True,
        has_bitsandbytes=True,
        has_liger=True,
    )
    make_plan(settings, nodes, model)
    run_dir = RunDir(settings.output_dir)
    job = newest_job(run_dir)
    if is_alive(run_dir) or goes_on(job):
        raise PreflightError(
            f"{settings.output_dir} is in use: {told_job(job) if job else 'a launcher is at work there'}",
            next_step=f"{typed('status', settings.output_dir)}     or: {typed('stop', settings.output_dir)}",
        )


def send(settings: RunSettings, script: Path, after: list[str], elements: int = 0) -> None:
    """Have SLURM judge a script, submit it, and say so."""
    shape = job_shape(settings)
    advice = judge(script)
    for warning in advice.warnings:
        click.echo(f"  slurm says {warning}")
    start = told_time(advice.expected_start)
    expected = f"; expected start {start}" if start and not after else ""
    click.echo(f"  checked    settings, {shape}, script passes sbatch --test-only{expected}")
    if kept := secret_names():
        click.echo(f"  note       not handed to the job, since SLURM would store them: {', '.join(kept)}")
    job_id = submit(script, after)
    note_job(RunDir(settings.output_dir), job_id)
    for number in range(elements):
        note_job(RunDir(settings.output_dir / str(number)), f"{job_id}_{number}")
    what = (
        f"job {job_id}" + (f", {elements} runs" if elements else "") + (f", after {', '.join(after)}" if after else "")
    )
    click.echo(f"  submitted  {what} ({settings.output_dir})")
    click.echo(
        f"  next       {typed('status', settings.output_dir)}{'' if elements else ' --watch'}     script: {script}"
    )


def read_sweep(path: Path) -> list[dict[str, Any]]:
    """The changes of each element: a list of mappings such as {lora.r: 16}. Raises SettingsError."""
    try:
        sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError([f"{path}  cannot be read: {error}"], source=str(path)) from None
    example = "a list is expected, each element with its settings:\n    - {lora.r: 8}\n    - {lora.r: 16}"
    if not isinstance(sweep, list) or not sweep or not all(isinstance(each, dict) for each in sweep):
        raise SettingsError([f"{path}  {example}"], source=str(path))
    fixed = [f"{path}  {key} is the same for all of an array" for each in sweep for key in each if _is_fixed(str(key))]
    if fixed:
        raise SettingsError(list(dict.fromkeys(fixed)), source=str(path), next_step="give it to lft submit itself")
    return [{str(key): value for key, value in each.items()} for each in sweep]


def _is_fixed(key: str) -> bool:
    return key.startswith(("slurm", "output_dir")) or key in (
        FLAGS["nodes"],
        FLAGS["gpus"],
        FLAGS["cpu_procs"],
    )


def _is_done(run: Path) -> bool:
    return is_trained(RunDir(run.expanduser().absolute()))


def _job_of(run: Path) -> str:
    ids = job_ids(RunDir(run.expanduser().absolute()))
    if not ids:
        raise SettingsError([f"--after {run}  was not submitted, and is not done"])
    return ids[-1]
