"""The documentation says what the code does: settings, exit codes, verbs, links."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from lft.cli.main import VERBS
from lft.core.errors import EXIT_CODES
from lft.core.settings import RunSettings
from tests.conftest import REPOSITORY

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")])


def text_of(name: str) -> str:
    """A page."""
    return (REPOSITORY / name).read_text(encoding="utf-8")


def test_every_setting_stands_in_the_run_file_page_with_the_meaning_its_field_has() -> None:
    page = text_of("docs/run-file.md")
    documented = set(re.findall(r"^\| `([\w.]+)` \|", page, re.M))
    actual: dict[str, str] = {}
    for name, field in RunSettings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            for key, inner in field.annotation.model_fields.items():
                actual[f"{name}.{key}"] = inner.description or ""
        else:
            actual[name] = field.description or ""
    assert documented == actual.keys()
    for key, meaning in actual.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{key}` |"))
        assert meaning.replace("\n", " ") in row, key


def test_the_exit_codes_page_is_the_table_of_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", text_of("docs/errors.md"), re.M)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, heading = target.partition("#")
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in headings}
            assert heading in anchors, target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_lft_command_shown_is_one_there_is(page: Path) -> None:
    blocks = re.findall(r"```(?:sh|bash|text)?\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for block in blocks:
        for verb in re.findall(r"^(?:\$ )?lft ([a-z]+)", block, re.M):
            assert verb in VERBS, verb


def test_the_architecture_page_names_every_module() -> None:
    page = text_of("docs/architecture.md")
    modules = [path.name for path in (REPOSITORY / "lft").rglob("*.py") if path.name != "__init__.py"]
    assert [name for name in modules if name not in page] == ["make_wordnet.py"]


def test_the_readme_shows_every_verb() -> None:
    pages = text_of("README.md") + text_of("docs/run-file.md")
    assert all(f"lft {verb}" in pages for verb in VERBS)
