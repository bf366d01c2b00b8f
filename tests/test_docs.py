"""The documentation says what the code does: settings, exit codes, verbs, links."""

import re
from pathlib import Path

import click
import pytest

from lft.cli.main import VERBS, cli
from lft.core.errors import EXIT_CODES, FORCED
from lft.core.settings import DataSettings, ModelSettings, RunSettings
from tests.conftest import REPOSITORY
from tests.docs.blocks import PAGES, blocks_of, name_of
from tests.written_tables import pages

PAGE = pytest.mark.parametrize("page", PAGES, ids=name_of)
FOR_USERS = [page for page in PAGES if page.name != "CHANGELOG.md" and page.parent.name != "decisions"]
OPTIONS_OF_OTHERS = {
    *("--config_file", "--nproc-per-node", "--num_gpus", "--no_local_rank", "--module", "--ntasks-per-node"),
    *("--test-only", "--mail-type", "--signal", "--nodes", "--long", "--kills", "--trl", "--llamafactory"),
    *("--held-out", "--check", "--do_predict", "--config", "--logdir", "--only", "--rounds", "--clock-threads"),
}
"""Of torchrun, accelerate, deepspeed, sbatch, this project's scripts and benchmarks, ruff, LLaMA-Factory, TRL, TensorBoard."""
FILE_SUFFIXES = ("yaml", "jsonl", "json", "csv", "txt", "parquet", "arrow", "py", "md", "safetensors")
REPORTED = {
    *("training.predicted_memory_bytes", "training.peak_memory_bytes_by_rank", "training.tokens_per_second"),
    *("training.seconds", "training.losses", "benchmark.base", "benchmark.tuned", "benchmark.difference"),
}
"""Keys of report.json, which pages name in the same way."""
MISSPELT = {"training.lerning_rate"}
"""What a page shows as a mistake."""


def text_of(name: str) -> str:
    """A page."""
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_the_tables_that_the_code_knows_are_those_of_the_code() -> None:
    for page, wanted in pages().items():
        assert page.read_text(encoding="utf-8") == wanted, f"{page} is behind: python -m tests.written_tables"


def test_the_exit_codes_page_is_the_table_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", text_of("docs/errors.md"), re.M)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


@PAGE
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    shown = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", shown):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in headings}
            assert heading in anchors, target


@PAGE
def test_every_lft_command_shown_is_one_there_is(page: Path) -> None:
    for block in blocks_of(page):
        if block.language in ("sh", "bash", "text"):
            for verb in re.findall(r"^(?:\$ )?lft ([a-z]+)", block.text, re.M):
                assert verb in VERBS, verb


@pytest.mark.parametrize("page", FOR_USERS, ids=name_of)
def test_every_option_named_is_one_of_lft_or_of_a_program_named_beside_it(page: Path) -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z_-]+", page.read_text(encoding="utf-8")))
    assert named <= options() | OPTIONS_OF_OTHERS, name_of(page)


@pytest.mark.parametrize("page", FOR_USERS, ids=name_of)
def test_every_exit_code_named_is_one_there_is(page: Path) -> None:
    named = re.findall(
        r"\bexit(?:s|ed|ing)?(?: code| with| status| codes)*:? (\d+)\b", page.read_text(encoding="utf-8")
    )
    assert {int(code) for code in named if int(code) < FORCED} <= EXIT_CODES.keys()


@pytest.mark.parametrize("page", FOR_USERS, ids=name_of)
def test_every_setting_named_is_one_there_is(page: Path) -> None:
    sections = RunSettings(model=ModelSettings(name="a/b"), data=DataSettings(source="a/b"))
    pattern = rf"(?<![\w./])({'|'.join(RunSettings.model_fields)})\.([a-z_]+)\b(?!\()"
    named = {".".join(found) for found in re.findall(pattern, page.read_text(encoding="utf-8"))}
    named = {name for name in named if name.rpartition(".")[2] not in FILE_SUFFIXES}
    assert named - sections.by_name().keys() <= REPORTED | MISSPELT, name_of(page)


def options() -> set[str]:
    """Every option of every verb."""
    found = {"--help", "--version"}
    verbs = [command for name in VERBS if (command := cli.get_command(click.Context(cli), name))]
    while verbs:
        command = verbs.pop()
        if isinstance(command, click.Group):
            inner = click.Context(command)
            verbs += [each for name in command.list_commands(inner) if (each := command.get_command(inner, name))]
        found |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return found


def test_the_architecture_page_names_every_module() -> None:
    page = text_of("docs/architecture.md")
    modules = [path.name for path in (REPOSITORY / "lft").rglob("*.py") if path.name != "__init__.py"]
    assert [name for name in modules if name not in page] == ["make_wordnet.py"]


def test_the_readme_shows_every_verb() -> None:
    pages = text_of("README.md") + text_of("docs/run-file.md")
    assert all(f"lft {verb}" in pages for verb in VERBS)
