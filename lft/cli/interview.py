"""The questions of lft init: what is still open is asked, and what is answered is looked at while the next one is asked."""

import re
from collections.abc import Callable
from pathlib import Path
from shutil import which

import click

from lft.cli.looking import DataLook, UnclearColumnsError, look_at_data, model_line
from lft.cli.questions import Unusable, ask, choose, confirm, whole_number
from lft.core.errors import DataError, LftError
from lft.core.hardware import Machine
from lft.core.model_facts import ModelFacts, UnknownModel, read_model_facts
from lft.core.paths import DATA_SUFFIXES, data_kind, input_mistakes, looks_local, unwritable
from lft.core.run_dir import RunDir
from lft.core.run_file_text import Entry, nested
from lft.core.section import absolute
from lft.core.setting import refusal
from lft.core.settings import DataSettings, ModelSettings, RunSettings, UploadSettings
from lft.doctor.ask import ask as answer_of
from lft.plan.aims import AIMS
from lft.plan.launch_plan import make_plan

FIRST_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
HUB_NAME = re.compile(r"^[\w][\w.-]*(/[\w][\w.-]*)?$", re.ASCII)
HERE, SLURM = "here", "slurm"
MOST_FILES = 5
SINFO_SECONDS = 3.0
Entries = dict[str, Entry]


def usable_model(name: str) -> str:
    """A model's name, if it can be one. Raises Unusable."""
    return _usable("model.name", name, "a Hub id such as " + FIRST_MODEL + ", a folder, or a .gguf file")


def usable_source(name: str) -> str:
    """A data source, if it can be one. Raises Unusable."""
    return _usable("data.source", name, "a file, a folder, a pattern or a Hub data set")


def usable_folder(name: str) -> str:
    """A folder for the adapter of a new run. Raises Unusable."""
    folder = absolute(Path(name)) if name else Path()
    problem = unwritable(folder) if name else "a folder is expected"
    if problem:
        raise Unusable(problem)
    if RunDir(folder).run.exists():
        raise Unusable(f"{name} holds a run already, which lft launch would go on with; another folder is expected")
    return name


def usable_repository(name: str) -> str:
    """The name of a repository, or nothing. Raises Unusable."""
    pattern = UploadSettings.model_json_schema()["properties"]["repo_name"]["anyOf"][0]["pattern"]
    if name.lower() in ("", "no", "n"):
        return ""
    if not re.fullmatch(pattern, name):
        raise Unusable("no, or owner/name is expected, for example me/support-lora")
    return name


def ask_model(entries: Entries) -> ModelFacts | UnknownModel:
    """Which model; what is known of it is said."""
    if "model.name" not in entries:
        entries["model.name"] = Entry(ask("Model (Hub id, folder or .gguf file)", FIRST_MODEL, usable_model))
    facts = read_model_facts(ModelSettings(name=entries["model.name"].value))
    click.echo(model_line(facts))
    return facts


def ask_data(entries: Entries) -> DataLook | None:
    """Which data; asked again until rows can be read from it. None for data on the Hub."""
    if "data.source" in entries:
        return _looked(entries)
    here = sorted(path.name for path in Path().iterdir() if path.is_file() and data_kind(path) in DATA_SUFFIXES)
    if len(here) > 1:
        shown = ", ".join(here[:MOST_FILES])
        click.echo(f"  here       {shown}" + (f" and {len(here) - MOST_FILES} more" if len(here) > MOST_FILES else ""))
    found: list[DataLook | None] = []

    def use(name: str) -> str:
        entries["data.source"] = Entry(usable_source(name))
        try:
            found.append(_looked(entries))
        except LftError as problem:
            raise Unusable(problem.message) from None
        return name

    ask("Data (file, folder or Hub data set)", f"./{here[0]}" if len(here) == 1 else None, use)
    return found[-1]


def ask_place(entries: Entries, machine: Machine) -> str:
    """Here, or on a cluster; and with how much of it."""
    options = {HERE: machine.describe(), SLURM: "nodes of a cluster, by lft submit"}
    place = choose("Where does it run?", options, SLURM if not machine.gpus and _has_cluster() else HERE)
    if place == HERE:
        _ask_gpus(entries, machine)
        return place
    if "launch.nodes" not in entries:
        entries["launch.nodes"] = Entry(ask("Nodes", "1", whole_number(1)))
    if "launch.gpus" not in entries:
        entries["launch.gpus"] = Entry(ask("GPUs a node", "1", whole_number(0)), "per node")
    for setting, question, default in (
        ("slurm.time", "Time limit (hours:minutes:seconds)", "4:00:00"),
        ("slurm.partition", "Partition (empty: the site's own)", ""),
        ("slurm.account", "Account (empty: the site's own)", ""),
    ):
        if setting not in entries and (answer := ask(question, default or None, _taken(setting))):
            entries[setting] = Entry(answer)
    return place


def _has_cluster() -> bool:
    """Whether jobs can be submitted from here: SLURM's programs may be installed without any cluster."""
    return which("sbatch") is not None and bool(answer_of(["sinfo", "--noheader"], SINFO_SECONDS).output.strip())


def ask_aim(entries: Entries, machine: Machine, model: ModelFacts | UnknownModel) -> str:
    """What it is to be best at; what the machine has room for is said before."""
    if line := fit_line(entries, machine, model):
        click.echo(line)
    return choose("What matters most?", AIMS, "balanced")


def fit_line(entries: Entries, machine: Machine, model: ModelFacts | UnknownModel) -> str:
    """What the run needs as it is; nothing where that is not known, or is decided on other machines."""
    if isinstance(model, UnknownModel) or "launch.nodes" in entries:
        return ""
    try:
        settings = RunSettings.model_validate(nested({name: entry.value for name, entry in entries.items()}))
        memory = make_plan(settings, machine, model).memory
    except (LftError, ValueError) as problem:
        return f"  fits       no: {problem.message}" if isinstance(problem, LftError) else ""
    return f"  fits       needs about {memory.figures()}" if memory else ""


def ask_rest(entries: Entries) -> None:
    """Where the adapter goes, here and on the Hub."""
    if "output_dir" not in entries:
        default = free_folder(entries["data.source"].value)
        entries["output_dir"] = Entry(ask("Folder for the adapter", default, usable_folder))
    if "upload.repo_name" in entries:
        return
    name = ask("Upload to the Hugging Face Hub as owner/name", "no", usable_repository)
    if name:
        private = confirm("Private", default=True)
        entries |= upload_entries(name, private=private)
        click.echo(f"  login      {login()}")


def upload_entries(name: str, *, private: bool) -> dict[str, Entry]:
    """What an upload to a repository of one's own needs."""
    return {
        "upload.repo_name": Entry(name, "the token comes from `hf auth login` or HF_TOKEN, never from here"),
        "upload.create_new": Entry(True, "created if it does not exist"),
        "upload.private": Entry(private),
    }


def login() -> str:
    """Whether the Hub's client has a token, which is not looked at."""
    from huggingface_hub import get_token

    return "a token is there" if get_token() else "no token yet; before the upload: hf auth login"


def free_folder(source: object) -> str:
    """`runs/support` for ./support.jsonl, with a number where a run is there already."""
    stem = Path(source.rstrip("/")).name.split(".")[0] if isinstance(source, str) else "mixed"
    stem = re.sub(r"[^\w-]+", "-", stem).strip("-") or "tuned"
    names = (f"runs/{stem}" + (f"-{number}" if number > 1 else "") for number in range(1, 10**6))
    return next(name for name in names if not RunDir(Path(name)).run.exists())


def _looked(entries: Entries) -> DataLook | None:
    try:
        found = look(entries)
    except UnclearColumnsError as problem:
        click.echo(f"  columns    {problem.message}")
        _ask_columns(entries)
        found = look(entries)
    for line in found.lines() if found else ["  rows       on the Hub; looked at when they are loaded"]:
        click.echo(line)
    return found


def look(entries: Entries) -> DataLook | None:
    """With what is known of how to read it."""
    given = {name.removeprefix("data."): entry.value for name, entry in entries.items() if name.startswith("data.")}
    return look_at_data(DataSettings.model_validate(given), entries["model.name"].value)


def _ask_columns(entries: Entries) -> None:
    """Where columns do not say by themselves what asks and what answers."""
    prompt = ask("Columns that ask, with commas (empty: none)", None, _columns)
    answer = ask("Column that answers, or holds the text", None, _columns)
    if not answer:
        raise DataError("no column is named")
    if prompt:
        template = "\n".join(f"{{{name}}}" for name in prompt)
        entries["data.prompt_template"] = Entry(template, "columns in braces")
    entries["data.completion_template"] = Entry("\n".join(f"{{{name}}}" for name in answer), "what is learned")


def _columns(answer: str) -> list[str]:
    found = [name.strip() for name in answer.split(",") if name.strip()]
    if any(brace in name for name in found for brace in "{}"):
        raise Unusable("names of columns are expected, without braces")
    return found


def _ask_gpus(entries: Entries, machine: Machine) -> None:
    """Only where there is something to choose."""
    if len(machine.gpus) < 2 or "launch.gpus" in entries:
        return

    def use(answer: str) -> int:
        wanted = whole_number(0)(answer)
        if wanted > len(machine.gpus):
            raise Unusable(f"there are {len(machine.gpus)}; a number up to that is expected")
        return wanted

    entries["launch.gpus"] = Entry(ask("How many of the GPUs", str(len(machine.gpus)), use))


def _taken(setting: str) -> Callable[[str], str]:
    """A use of an answer: what a setting takes, or nothing."""

    def use(answer: str) -> str:
        if answer and (problem := refusal(setting, answer)):
            raise Unusable(problem)
        return answer

    return use


def _usable(setting: str, name: str, expected: str) -> str:
    section, _, key = setting.partition(".")
    for _, problem in input_mistakes({section: {key: name}}):
        raise Unusable(problem)
    if not name:
        raise Unusable(f"{expected} is expected")
    if not (looks_local(name) or HUB_NAME.match(name)):
        raise Unusable(f"{name} is not here, and is no name of the Hub; {expected} is expected")
    return name
