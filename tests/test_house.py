"""The house itself: which room may use which, what stays light, and the limits every file keeps."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import lft
from lft.cli.data import DATA_VERBS
from lft.cli.main import VERBS, run

REPOSITORY = Path(__file__).parent.parent
SOURCES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in [*sorted((REPOSITORY / "lft").rglob("*.py")), REPOSITORY / "finetune_cli.py"]
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
HEAVY = {"torch", "transformers", "peft", "datasets", "accelerate"}
ROOMS = {
    "core": set[str](),
    "demo": {"core"},
    "foreign": {"core"},
    "plan": {"core"},
    "publish": {"core"},
    "data": {"core"},
    "train": {"data", "publish", "core"},
    "launch": {"plan", "publish", "core"},
    "doctor": {"core"},
    "cli": {"launch", "plan", "publish", "core", "demo", "data", "doctor", "foreign"},
}
COMPUTING = {
    "chat": ("answering", "generation", "tuned"),
    "generate": ("answering", "tuned"),
    "merge": ("merged_model",),
}
"""Verbs that compute in their own process, and what they use of the training tower, inside their functions."""
ALLOWED = {
    ("lft.cli.version", "lft"),
    ("lft.cli.preparing", "lft.train.model"),
    *((f"lft.cli.{verb}", f"lft.train.{module}") for verb, modules in COMPUTING.items() for module in modules),
}
MOST_FILE_LINES, MOST_FUNCTION_LINES = 350, 60


def imports(module: str) -> Iterator[str]:
    """Every module that `module` names in an import, at its top, inside a function or for type checking only."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} is a relative import, which these checks cannot follow"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in SOURCES else str(node.module)


def room(module: str) -> str:
    """`lft.core.files` -> `core`; nothing for the face and finetune_cli."""
    parts = module.split(".")
    return parts[1] if parts[0] == "lft" and len(parts) > 1 else ""


def tracked_texts() -> Iterator[tuple[str, str]]:
    """Path and text of every file that is, or would be, in the repository."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in filter(None, done.stdout.split("\0")):
        content = (REPOSITORY / name).read_bytes() if (REPOSITORY / name).is_file() else b"\0"
        if b"\0" not in content:  # neither deleted nor a picture
            yield name, content.decode()


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_uses_only_the_rooms_below_it(name: str) -> None:
    allowed = ROOMS[name] | {name}
    wrong = [
        f"{module} imports {used}"
        for module in SOURCES
        if room(module) == name
        for used in imports(module)
        if used.split(".")[0] in ("lft", "finetune_cli") and room(used) not in allowed and (module, used) not in ALLOWED
    ]
    assert not wrong


def test_every_room_is_known_and_has_its_arrows_checked() -> None:
    assert {room(module) for module in SOURCES} == ROOMS.keys() | {""}


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: {used for used in imports(module) if used in SOURCES} for module in SOURCES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("name", ["core", "plan", "launch", "publish", "cli", "demo", "doctor", "foreign"])
def test_no_room_but_train_names_a_heavy_library(name: str) -> None:
    found = [
        f"{module} imports {used}"
        for module in SOURCES
        if room(module) == name
        for used in imports(module)
        if used.split(".")[0] in HEAVY
    ]
    assert not found


def test_the_data_room_names_heavy_libraries_only_where_it_needs_them() -> None:
    """At the top of its modules only for type checking, and torch nowhere: a prepared cache is opened without them."""
    modules = [module for module in SOURCES if room(module) == "data"]
    tops = {
        module: [node for node in TREES[module].body if isinstance(node, ast.Import | ast.ImportFrom)]
        for module in modules
    }
    found = [
        f"{module}:{node.lineno}"
        for module, nodes in tops.items()
        for node in nodes
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
        if str(name).split(".")[0] in HEAVY
    ]
    assert not found
    assert not [module for module in modules if "torch" in {used.split(".")[0] for used in imports(module)}]


def test_only_present_and_its_screen_draw_with_rich() -> None:
    users = {module for module in SOURCES for used in imports(module) if used.split(".")[0] == "rich"}
    assert users == {"lft.cli.present", "lft.cli.screen"}


def test_the_environment_is_touched_in_one_file_only() -> None:
    touching = {"environ", "environb", "getenv", "putenv", "unsetenv"}
    users = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Attribute) and node.attr in touching)
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and touching & {each.name for each in node.names})
    }
    assert users == {"lft.core.rank"}


def test_files_and_functions_stay_short() -> None:
    long = [
        f"{module}: {lines} lines"
        for module, path in SOURCES.items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MOST_FILE_LINES
    ]
    long += [
        f"{module}:{node.lineno} {node.name}: {lines} lines"
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_FUNCTION_LINES
    ]
    assert not long


def test_no_file_or_folder_has_a_name_that_says_nothing() -> None:
    names = [name for name, _ in tracked_texts()]
    empty = {"util", "utils", "misc", "common", "helper", "helpers"}
    assert names
    assert not [name for name in names if empty & {Path(part).stem.lower() for part in Path(name).parts}]


def test_no_tracked_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    home = re.compile(r"(?<![\w.~])/(work|root|home/\w+|Users/\w+)/")
    found = [
        f"{name}:{number}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if home.search(line)
    ]
    assert not found


def test_no_tracked_file_is_decorated_with_emoji() -> None:
    emoji = re.compile("[\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff]")
    assert not [f"{name}: {found.group()!a}" for name, text in tracked_texts() if (found := emoji.search(text))]


@pytest.mark.parametrize("name", lft.__all__)
def test_every_name_of_the_face_can_be_imported(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from lft import {name}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_of_the_face_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Finetuner'"):
        getattr(lft, "Finetuner")  # noqa: B009 - mypy knows that it is not there


@pytest.mark.parametrize(
    "arguments",
    [
        None,
        ["--help"],
        ["--version"],
        ["completion", "fish"],
        ["doctor", "--help"],
        ["launch", "--help"],
        ["data", "prune"],
        ["plan", "--model", "./none"],
        ["plan", "RUN.yaml"],
    ],
    ids=str,
)
def test_the_launcher_starts_without_the_heavy_libraries(arguments: list[str] | None, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "RUN.yaml").write_text("model: {name: someone/model}\ndata: {source: ./rows.jsonl}\n")
    call = f"from lft.cli.main import run; code = run({arguments})" if arguments else "import lft; code = 0"
    script = f"import sys, json; {call}; print(json.dumps([code, sorted({HEAVY} & sys.modules.keys())]))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = 2 if arguments and "./none" in arguments else 0
    assert json.loads(done.stdout.splitlines()[-1]) == [expected, []]


@pytest.mark.parametrize("verb", [*VERBS, *(f"data {verb}" for verb in DATA_VERBS)])
def test_the_help_of_every_verb_has_an_example_to_copy(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*verb.split(), "--help"]) == 0
    assert re.search(rf"^ *lft {verb}\b", capsys.readouterr().out, re.MULTILINE)
