"""lft init: asks a few questions, or reads another project's configuration, and writes a run file."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from lft.cli import interview
from lft.cli.interview import HERE, SLURM, Entries
from lft.cli.options import given_flags
from lft.cli.planning import plan_here
from lft.cli.questions import Unusable, confirm
from lft.cli.run_argument import DEFAULT_FILE
from lft.cli.translated import told_count, told_translation
from lft.core.errors import DataError, LftError, SettingsError
from lft.core.files import write_text
from lft.core.hardware import Machine, look_at_machine
from lft.core.model_facts import ModelFacts, UnknownModel, read_model_facts
from lft.core.paths import input_mistakes
from lft.core.run_file_text import Entry, nested, run_file_text
from lft.core.settings import LaunchSettings, ModelSettings, RunSettings
from lft.core.settings_file import read_settings
from lft.foreign.projects import translate
from lft.plan.aims import AIMS, Lengths, aim_settings, everyone_changes
from lft.plan.topology import choose_topology

ESSENTIAL = ("model.name", "data.source")
MEANINGS = {
    "model.name": "Hub id, folder or .gguf file",
    "data.source": "file, folder, pattern, Hub data set, or a list of {source, weight}",
    "data.max_length": "tokens; longer rows are cut at the end",
    "data.held_out": "share of the rows, or a number of them, to compare base and tuned model on",
    "training.batch_size": "rows per device at a time; the rows of a step: global_batch_size",
    "launch.gpus": "on each node; auto takes all that are there",
}
"""Shorter than the reference."""


@click.command("init")
@click.argument("run_file", required=False, default=DEFAULT_FILE, type=click.Path(path_type=Path))
@click.option(
    "--from", "foreign", metavar="FILE", type=click.Path(path_type=Path),
    help="Translate a configuration of axolotl, LLaMA-Factory, TRL, accelerate or DeepSpeed.",
)  # fmt: skip
@click.option("--model", metavar="NAME", help="Hub id, folder or .gguf file.")
@click.option("--dataset", metavar="SOURCE", help="File, folder, pattern or Hub data set.")
@click.option("--aim", type=click.Choice(list(AIMS)), help="What matters most.")
@click.option("--where", type=click.Choice([HERE, SLURM]), help="This machine, or a cluster.")
@click.option("--output-dir", metavar="DIR", help="Folder of the adapter.")
@click.option("--gpus", metavar="N|auto", help="GPUs per node; 0 runs on the CPU.")
@click.option("--nodes", metavar="N", help="Machines of the run.")
@click.option(
    "--repo-name", metavar="OWNER/NAME", help="Upload to this repository, private unless --set upload.private=false."
)
@click.option("--set", "sets", metavar="KEY=VALUE", multiple=True, help="Any other setting.")
@click.option("--yes", is_flag=True, help="Ask nothing; what is missing is an error.")
@click.option("--force", is_flag=True, help="Overwrite RUN_FILE without asking.")
def command(
    run_file: Path,
    foreign: Path | None,
    aim: str | None,
    where: str | None,
    repo_name: str | None,
    sets: tuple[str, ...],
    yes: bool,
    force: bool,
    **flags: Any,
) -> None:
    """Write a run file (./lft.yaml by default) from a few answers, and show what it would do.

    \b
    lft init
    lft init run.yaml --from axolotl.yml
    lft init --yes --model ./model --dataset rows.jsonl --aim memory
    """
    _may_write(run_file, yes=yes, force=force)
    given = _given(flags, sets)
    entries: Entries = {}
    head = f"A run of lft: lft launch {shlex.quote(str(run_file))}\nEvery setting: docs/run-file.md"
    machine = look_at_machine()
    try:
        if foreign is not None:
            head = f"{head}\n{_take_over(foreign, given, machine, entries)}"
        entries.update(given)
        if repo_name:
            entries |= {name: entry for name, entry in _upload(repo_name).items() if name not in given}
        if yes or foreign is not None:
            _complete(entries, foreign, ask=not yes)
            where = where or HERE
            lengths, model = _lengths(entries), _model(entries)
            aim = aim or ("balanced" if foreign is None else None)
        else:
            model = interview.ask_model(entries)
            look = interview.ask_data(entries)
            lengths = look.lengths if look else None
            where = where or interview.ask_place(entries, machine)
            aim = aim or interview.ask_aim(entries, machine, model)
            interview.ask_rest(entries)
    except (KeyboardInterrupt, click.Abort):
        click.echo("\n  nothing was written", err=True)
        raise
    if aim is not None:
        _serve(aim, entries, machine, model, lengths)
    _write(run_file, entries, head)
    _show(run_file, where, model)


def _may_write(run_file: Path, *, yes: bool, force: bool) -> None:
    """Raises SettingsError where the file is there and is not to be overwritten."""
    if force or not run_file.exists():
        return
    if run_file.is_dir():
        raise SettingsError([f"{run_file}  is a folder; the name of a file is expected"])
    if yes or not confirm(f"{run_file} is there already. Overwrite it", default=False):
        raise SettingsError(
            [f"{run_file}  is there already, and stays as it is"], next_step="name another file, or use --force"
        )


def _given(flags: dict[str, Any], sets: tuple[str, ...]) -> Entries:
    """What was said on the command line. Raises SettingsError with all mistakes in it but those of model and data."""
    said = given_flags(flags)
    others = {setting: said[setting] for setting in said if setting not in ESSENTIAL}
    placeholders = {"model.name": ("--model", "a/b"), "data.source": ("--dataset", "c/d")}
    read_settings(None, others | placeholders, [text for text in sets if not text.startswith(ESSENTIAL)])
    texts = (*ESSENTIAL, "output_dir")
    entries = {name: Entry(value if name in texts else _scalar(str(value))) for name, (_, value) in said.items()}
    for text in sets:
        key, _, value = text.partition("=")
        entries[key.strip()] = Entry(_scalar(value))
    return entries


def _scalar(text: str) -> Any:
    """As --set reads it."""
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # ValueError: looks like a date, and is none
        return text


def _take_over(foreign: Path, given: Mapping[str, Entry], machine: Machine, entries: Entries) -> str:
    """Another project's configuration into `entries`; says what became of each key. The line for the head of the file."""
    names = LaunchSettings.model_fields
    launch = {name: given[f"launch.{name}"].value for name in names if f"launch.{name}" in given}
    ranks = choose_topology(LaunchSettings.model_validate(launch), machine).asked_ranks
    draft = translate(foreign, ranks)
    for line in told_translation(draft):
        click.echo(line)
    entries |= {name: Entry(value, draft.sources[name]) for name, value in draft.settings.items()}
    return told_count(draft)


def _upload(repo_name: str) -> dict[str, Entry]:
    try:
        return interview.upload_entries(interview.usable_repository(repo_name), private=True)
    except Unusable as problem:
        raise SettingsError([f"--repo-name {repo_name}  {problem}"]) from None


def _complete(entries: Entries, foreign: Path | None, *, ask: bool) -> None:
    """Model and data, which have no default: asked for, or all that is wrong with them as one error."""
    values = nested({name: entries[name].value for name in ESSENTIAL if name in entries})
    problems = dict(input_mistakes(values))
    absent = [name for name in ESSENTIAL if name not in entries]
    flags = dict(zip(ESSENTIAL, ("--model", "--dataset"), strict=True))
    if ask:
        for setting, problem in problems.items():
            click.echo(f"  again      {setting} {problem}")
            entries.pop(setting if setting in ESSENTIAL else "data.source", None)
        if absent or problems:
            interview.ask_model(entries)
            interview.ask_data(entries)
        return
    mistakes = [f"{flags[setting]}  {setting} is missing; it has no default" for setting in absent]
    mistakes += [f"{flags.get(setting, '--dataset')}  {setting} {problem}" for setting, problem in problems.items()]
    if mistakes:
        then = f" --from {shlex.quote(str(foreign))}" if foreign else ""
        raise SettingsError(
            mistakes, next_step=f"lft init --yes{then} --model {interview.FIRST_MODEL} --dataset ./data.jsonl"
        )


def _model(entries: Entries) -> ModelFacts | UnknownModel:
    return read_model_facts(ModelSettings(name=str(entries["model.name"].value)))


def _lengths(entries: Entries) -> Lengths | None:
    """Of the rows of local data; data that cannot be read is told, and is no reason to write nothing."""
    try:
        look = interview.look(entries)
    except DataError as problem:
        click.echo(f"  note       {problem}")
        return None
    for line in look.lines() if look else []:
        click.echo(line)
    return look.lengths if look else None


def _serve(
    aim: str, entries: Entries, machine: Machine, model: ModelFacts | UnknownModel, lengths: Lengths | None
) -> None:
    """What the aim asks for and nobody has said otherwise; and what everyone changes."""
    launch = {
        name.removeprefix("launch."): entry.value for name, entry in entries.items() if name.startswith("launch.")
    }
    ranks = choose_topology(LaunchSettings.model_validate(launch), machine).asked_ranks
    for setting, wanted in aim_settings(aim, machine, model, lengths, ranks).items():
        entries.setdefault(setting, Entry(wanted.value, wanted.reason))
    for setting, value in everyone_changes().items():
        entries.setdefault(setting, Entry(value))


def _write(run_file: Path, entries: Entries, head: str) -> None:
    """Only what the reader takes. Raises SettingsError with all that it does not."""
    entries.setdefault("output_dir", Entry(interview.free_folder(entries["data.source"].value)))
    for setting, comment in MEANINGS.items():
        if setting in entries and not entries[setting].comment:
            entries[setting] = Entry(entries[setting].value, comment)
    read_settings(None, {name: (name, entry.value) for name, entry in entries.items()}, ())
    write_text(run_file, run_file_text(entries, head))
    click.echo(f"  wrote      {run_file}")


def _show(run_file: Path, where: str, model: ModelFacts | UnknownModel) -> None:
    """What the file would do, and what to type next."""
    settings = read_settings(run_file, {}, ())
    name = "" if str(run_file) == DEFAULT_FILE else f" {shlex.quote(str(run_file))}"
    try:
        if where == SLURM:
            _check_job(settings, model)
        else:
            from lft.cli.present import show_plan

            show_plan(plan_here(settings, model))
    except LftError as problem:
        click.echo(f"  problem    {problem}")
    verb = "submit" if where == SLURM else "launch"
    click.echo(f"  next       lft {verb}{name}" + ("" if where == SLURM else f"     or first: lft data inspect{name}"))


def _check_job(settings: RunSettings, model: ModelFacts | UnknownModel) -> None:
    from lft.cli.submit import check
    from lft.plan.sbatch_script import job_shape

    check(settings, model)
    click.echo(f"  checked    settings, {job_shape(settings)}")
