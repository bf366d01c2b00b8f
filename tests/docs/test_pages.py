"""Everything that README and docs/ tell a reader to type works as it stands, page by page, each in a folder of its own.

What is not carried out, or not as it stands, is in `stand_ins.py`, with its reason. The models that pages name come from a
Hub on this machine.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lft.core.settings import RunSettings
from tests.conftest import REPOSITORY, TinyModels, demo_lines
from tests.docs import stand_ins
from tests.docs.blocks import PAGES, Block, blocks_of, name_of, programs
from tests.local_hub import LocalHub

RUN_FILE = """model: {name: HuggingFaceTB/SmolLM2-135M-Instruct}
data: {source: ./support.jsonl, max_length: 128}
training: {max_steps: 4, save_every: 2, batch_size: 2}
benchmark: {num_prompts: 4, max_new_tokens: 8}
launch: {cpu_procs: 1}
output_dir: runs/support
"""
TRAIN = {"docs/usage.md": "in any suite", "docs/examples.md": "in the long one; planned in any"}
"""Pages whose commands are one story: they train, benchmark and resume in earnest, each in a folder of its own."""
ANSWERED = {"docs/first-run.md": {"lft.yaml": RUN_FILE}}
"""Pages that ask questions, which no test answers, and the files that the answers would have made."""
ELSEWHERE = {"docs/api.md": "tests/test_api_reference.py"}
"""Pages of which another test runs every block."""
SCREENS = ("text", "csv", "jinja", "")
"""Languages of blocks that show something, and are neither run nor parsed."""

WITH_PROGRAMS = [page for page in PAGES if programs(page) and name_of(page) not in ELSEWHERE]
PAGE = pytest.mark.parametrize("page", WITH_PROGRAMS, ids=name_of)


@pytest.fixture(scope="module")
def environment(tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a reader has: lft and the usual programs on the PATH, a login, and a Hub with the models that pages name."""
    programs_folder = tmp_path_factory.mktemp("bin")
    shims = dict.fromkeys(stand_ins.OTHER_PROGRAMS, "exit 0")
    shims |= {"lft": f'exec "{sys.executable}" -m tests.docs.stand_ins "$@"', "python": f'exec "{sys.executable}" "$@"'}
    for name, line in shims.items():
        (programs_folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs_folder / name).chmod(0o755)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    with LocalHub({"hf_reader": "me"}) as hub:
        for name, style in stand_ins.HUB_MODELS.items():
            folder: Path = getattr(tiny_models, style)
            hub.add_repository("models", name, {path.name: path.read_bytes() for path in folder.iterdir()})
        own = {"PATH": f"{programs_folder}:/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "COLUMNS": "120"}
        yield inherited | hub.environment(tmp_path_factory.mktemp("hf"), token="hf_reader") | own


@pytest.fixture(scope="module")
def trained(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run file, its data and the finished run runs/support, from which pages begin."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "support.jsonl").write_text("\n".join(demo_lines(60)) + "\n", encoding="utf-8")
    (folder / "run.yaml").write_text(RUN_FILE, encoding="utf-8")
    launch(folder, environment, "lft launch run.yaml")
    return folder


def launch(folder: Path, environment: dict[str, str], script: str) -> None:
    """Run a script with training."""
    carry_out(
        ["bash", "-euo", "pipefail", "-c", script], folder, environment | {"DOCUMENTED_RUNS_TRAIN": "yes"}, script
    )


def carry_out(command: list[str], folder: Path, environment: dict[str, str], what: str) -> None:
    """Run a command; what it printed is the message of its failure."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{what}\nexit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def is_not_run(block: Block) -> bool:
    """Whether the table of blocks that are not run has it."""
    return any(block.page == page and block.text.startswith(words) for page, words in stand_ins.NOT_RUN)


def follow(page: Path, folder: Path, environment: dict[str, str]) -> None:
    """Do what a page says, from its first block to its last."""
    for name, content in ANSWERED.get(name_of(page), {}).items():
        (folder / name).write_text(content, encoding="utf-8")
    for number, block in enumerate(programs(page)):
        if is_not_run(block):
            continue
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            program = folder / f"block{number}.py"
            program.write_text(block.text, encoding="utf-8")
            carry_out([sys.executable, program.name], folder, environment, block.place)
        else:
            carry_out(["bash", "-euo", "pipefail", "-c", block.text], folder, environment, block.place)


@PAGE
def test_what_a_page_says_to_type_works_as_it_stands(
    page: Path, environment: dict[str, str], trained: Path, tmp_path: Path
) -> None:
    if TRAIN.get(name_of(page)) == "in any suite":
        follow_in_earnest(page, environment, trained, tmp_path)
    else:
        follow(page, shutil.copytree(trained, tmp_path / "page"), environment)


@pytest.mark.long
def test_the_examples_train_as_they_stand(environment: dict[str, str], trained: Path, tmp_path: Path) -> None:
    follow_in_earnest(REPOSITORY / "docs" / "examples.md", environment, trained, tmp_path)


def follow_in_earnest(page: Path, environment: dict[str, str], trained: Path, folder: Path) -> None:
    """Do what a page says, with every training. docs/usage.md makes runs/support itself."""
    left_out = shutil.ignore_patterns("runs" if name_of(page) == "docs/usage.md" else "")
    start = shutil.copytree(trained, folder / "page", ignore=left_out)
    follow(page, start, environment | {"DOCUMENTED_RUNS_TRAIN": "yes"})


@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks_of(page)], ids=lambda block: block.place)
def test_every_block_is_run_or_parsed_or_is_a_screen(block: Block) -> None:
    if block.language == "yaml":
        content = yaml.safe_load(block.text)
        sections = set(RunSettings.model_fields) - {"output_dir"}
        if isinstance(content, dict) and any(isinstance(content.get(name), dict) for name in sections):
            needed = {"model": {"name": "a/b"}, "data": {"source": "a/b"}}
            RunSettings.model_validate({**content, **{key: needed[key] | content.get(key, {}) for key in needed}})
    elif block.language in ("json", "jsonl"):
        try:
            json.loads(block.text)
        except json.JSONDecodeError:
            assert all(json.loads(line) for line in block.text.splitlines())
    else:
        assert block.language in ("sh", "bash", "python", *SCREENS), f"{block.place}: {block.language or 'no language'}"


def test_the_table_of_blocks_that_are_not_run_names_only_what_pages_have() -> None:
    texts = [(block.page, block.text) for page in PAGES for block in programs(page)]
    for page, words in stand_ins.NOT_RUN:
        assert any(page == name and text.startswith(words) for name, text in texts), (page, words)
