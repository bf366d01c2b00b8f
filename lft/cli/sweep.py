"""lft sweep: the runs that a run file's lists of values make, one after another or as a SLURM array, and their results."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lft.cli.continuing import Intent, intend, refuse_running
from lft.cli.options import job_options, plan_options, settings_from
from lft.cli.run_argument import DEFAULT_FILE
from lft.cli.story import typed
from lft.cli.submit import check, send
from lft.cli.verb import option
from lft.cli.work import work
from lft.core.errors import DONE, PREFLIGHT, SAVED, STOPPED, TRAINING, LftError, SettingsError
from lft.core.files import write_text
from lft.core.model_facts import read_model_facts
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.core.words import counted
from lft.launch.outcome import Outcome
from lft.launch.slurm import requeues_by_exit_code
from lft.launch.submission import write_sweep
from lft.plan.sweep import Changes, cannot_be_swept, expand, run_names
from lft.publish.metrics import metric
from lft.publish.report import read_report

RESULTS = "sweep.json"
EXAMPLE = "write into it, for example:\n\n    sweep:\n      lora.r: [8, 16]\n      training.learning_rate: [1e-4, 2e-4]"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a sweep."""

    name: str
    changes: Changes
    settings: RunSettings


@click.command("sweep")
@plan_options
@job_options
@option("Job", "--by", metavar="METRIC", default="loss", help="What the results are sorted by.")
@option("Job", "--dry-run", is_flag=True, help="Show the runs and their cost, and stop.")
@option("Job", "--results", is_flag=True, help="Show the results so far, and stop.")
@option("Job", "--submit", is_flag=True, help="Submit the runs as one SLURM array.")
def command(
    run_file: Path | None,
    demo: bool,
    sets: tuple[str, ...],
    by: str,
    dry_run: bool,
    results: bool,
    submit: bool,
    **flags: Any,
) -> int:
    """Make a run of every combination of values under `sweep:`; again: go on.

    \b
    lft sweep run.yaml --dry-run
    """
    settings = settings_from(run_file, demo, sets, flags)
    runs = runs_of(settings, run_file, demo, sets, flags)
    if results:
        show_results(settings.output_dir, runs, by)
        return DONE
    if submit:
        _submit(settings, runs, run_file)
        return DONE
    intents = _intents(runs)
    _show_runs(settings.output_dir, runs, intents)
    if dry_run:
        return DONE
    code = _carry_out(runs, intents)
    if code in (STOPPED, SAVED):
        click.echo("  stopped    the sweep; typed again, it goes on", err=True)
    show_results(settings.output_dir, runs, by)
    return code


def runs_of(
    settings: RunSettings, run_file: Path | None, demo: bool, sets: tuple[str, ...], flags: dict[str, Any]
) -> list[Run]:
    """The runs of a sweep, each in a folder below the file's. Raises SettingsError with the mistakes of all of them."""
    if not settings.sweep:
        raise SettingsError([f"{run_file or 'the run file'}  has no sweep: section"], next_step=EXAMPLE)
    mistakes = cannot_be_swept(settings.sweep)
    found, combinations = [], expand(settings.sweep)
    for name, changes in zip(run_names(combinations), combinations, strict=True):
        more = tuple(f"{key}={json.dumps(value)}" for key, value in changes.items())
        own = flags | {"output_dir": str(settings.output_dir / name)}
        try:
            read = settings_from(run_file, demo, (*sets, *more, "sweep={}"), own)
            found.append(Run(name, changes, read))
        except SettingsError as error:
            mistakes += [mistake.replace("--set ", "sweep.") for mistake in error.mistakes]
    if mistakes:
        raise SettingsError(list(dict.fromkeys(mistakes)), source="the sweep")
    return found


def _intents(runs: list[Run]) -> list[Intent]:
    """What is to be done of each run. Raises SettingsError with all that cannot work in any of them."""
    intents, mistakes = [], []
    for run in runs:
        try:
            refuse_running(RunDir(run.settings.output_dir))
            intents.append(intend(run.settings))
        except SettingsError as error:
            mistakes += [f"{run.name}  {mistake}" for mistake in error.mistakes]
        except LftError as error:
            mistakes.append(f"{run.name}  {error.message}; {error.next_step}")
    if mistakes:
        raise SettingsError(mistakes, source="the sweep", next_step="mend the values under sweep:")
    return intents


def _show_runs(folder: Path, runs: list[Run], intents: list[Intent]) -> None:
    """Every run, what it would take, and whether it is done."""
    click.echo(f"  sweep      {counted(len(runs), 'run')} in {folder}")
    for run, intent in zip(runs, intents, strict=True):
        plan = intent.plan
        lines = {choice.name: choice.value for choice in plan.choices}
        most = plan.settings.training.max_steps
        steps = f"{most or lines.get('steps', 'unknown')} steps"
        memory = f", {plan.memory.figures()}" if plan.memory else ""
        told = "trained" if intent.tasks is not None else f"{steps} on {counted(plan.topology.ranks, 'rank')}{memory}"
        done = "finished" if intent.tasks == () else told
        click.echo(f"  {run.name}  {done}" + (f", from {plan.resume_from.name}" if plan.resume_from else ""))


def _carry_out(runs: list[Run], intents: list[Intent]) -> int:
    """One run after another; one that fails does not stop the others, one that its user stops does."""
    worst = DONE
    for number, (run, intent) in enumerate(zip(runs, intents, strict=True), start=1):
        if intent.tasks == ():
            continue
        click.echo(f"\n  run        {number} of {len(runs)}: {run.name}")
        try:
            code = work(intent)
        except LftError as error:
            click.echo(str(error), err=True)
            code = error.exit_code
        except OSError as error:
            click.echo(f"{error.filename or 'the system'}: {error.strerror or error}", err=True)
            code = PREFLIGHT
        if code in (STOPPED, SAVED):
            return code
        worst = worst or (TRAINING if code else DONE)
    return worst


def _submit(settings: RunSettings, runs: list[Run], run_file: Path | None) -> None:
    """All runs as one array; its elements find their folders by number."""
    for number, run in enumerate(runs):
        check(run.settings, read_model_facts(run.settings.model))
        run.settings.output_dir.mkdir(parents=True, exist_ok=True)
        link = settings.output_dir / str(number)
        link.unlink(missing_ok=True)
        link.symlink_to(run.name)
    elements = [(run.changes, run.settings) for run in runs]
    script = write_sweep(settings, elements, sys.executable, requeue_exit=requeues_by_exit_code(SAVED))
    send(settings, script, [], len(elements))
    click.echo(f"  results    {typed('sweep', run_file or Path(DEFAULT_FILE))} --results")


def show_results(folder: Path, runs: list[Run], by: str) -> None:
    """The runs with what came of them, the best first, as a table and in sweep.json."""
    rows = [_result(run) for run in runs]
    measured = [row for row in rows if isinstance(row["metrics"].get(by), float | int)]
    measured.sort(key=lambda row: row["metrics"][by], reverse=not metric(by).lower_is_better)
    rows = measured + [row for row in rows if row not in measured]
    write_text(folder / RESULTS, json.dumps({"by": by, "runs": rows}, indent=1) + "\n")
    shown = list(dict.fromkeys([by, "loss", "rougeL"]))
    titles = ["run", *(metric(name).label for name in shown), "state"]
    table = [titles] + [
        [row["run"], *(_number(row["metrics"].get(name)) for name in shown), row["state"]] for row in rows
    ]
    widths = [max(len(line[column]) for line in table) for column in range(len(titles))]
    for line in table:
        click.echo("  " + "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    click.echo(f"  results    {folder / RESULTS}")


def _result(run: Run) -> dict[str, Any]:
    """What a run's report says of it."""
    report = read_report(RunDir(run.settings.output_dir)) or {}
    training, tuned = report.get("training") or {}, (report.get("benchmark") or {}).get("tuned", {})
    held_out = training.get("held_out_losses") or [{}]
    metrics = {"loss": held_out[-1].get("held_out_loss")} | tuned
    attempts = RunDir(run.settings.output_dir).attempts()
    outcome = Outcome.load(attempts[-1].outcome) if attempts else None
    state = f"{training['steps']} steps" if training else "under way" if attempts else "not begun"
    if outcome and outcome.exit_code:
        state = f"exit {outcome.exit_code}: {typed('why', run.settings.output_dir)}"
    return {"run": run.name, "changes": dict(run.changes), "state": state, "metrics": metrics}


def _number(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float | int) else "-"
