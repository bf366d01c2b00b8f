"""lft generate, chat and merge, as they are typed, with a tiny adapter made by plain peft."""

import io
import json
from pathlib import Path

import pytest

from lft.cli.main import run
from lft.core.errors import PREFLIGHT, SETTINGS
from tests.conftest import TinyModels
from tests.train.test_merge import make_adapter

PROMPT = 'Define the noun "stream".'


@pytest.fixture(scope="module")
def adapter(tiny_models: TinyModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(tiny_models.llama, tmp_path_factory.mktemp("adapter") / "out")


def said(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """What a command prints to standard output."""
    found = run([str(word) for word in words])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return captured.out if code == 0 else captured.err


def test_one_prompt_is_answered_by_the_adapter_and_beside_it_by_the_base(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(capsys, "generate", adapter, PROMPT, "--compare", "--max-new-tokens", 12)
    base, tuned = out.strip().split("\n")[0], out.strip().split("\n")[-1]
    assert base.startswith("base: ")
    assert tuned.startswith("tuned: ")
    assert base.removeprefix("base: ") != tuned.removeprefix("tuned: ")


def test_prompts_of_a_file_get_the_answers_that_each_gets_alone(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = [PROMPT, 'Define the verb "participate".', "What is machine learning?"]
    (tmp_path / "prompts.txt").write_text("\n\n".join(prompts) + "\n")
    lines = [json.dumps({"prompt": prompt}) for prompt in prompts]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    short = ("--max-new-tokens", 8)
    alone = [said(capsys, "generate", adapter, prompt, *short).strip() for prompt in prompts]
    for name in ("prompts.txt", "prompts.jsonl"):
        out = said(capsys, "generate", adapter, "--file", tmp_path / name, "--json", *short)
        rows = [json.loads(line) for line in out.splitlines()]
        assert [row["prompt"] for row in rows] == prompts
        assert [row["tuned"] for row in rows] == alone


def test_a_prompt_may_come_through_a_pipe_and_drawn_answers_repeat_with_their_seed(
    adapter: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    for seed in (1, 1, 2):
        monkeypatch.setattr("sys.stdin", io.StringIO(PROMPT + "\n"))
        words = ("generate", adapter, "-", "--temperature", 1.5, "--seed", seed, "--max-new-tokens", 16)
        drawn.append(said(capsys, *words))
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("lines", "mistakes"),
    [
        (['{"prompt": "a"}', '{"text": "b"}', "no json"], (":2 ", ":3 ")),
        (["", " "], ("is empty",)),
    ],
    ids=["rows without a prompt", "nothing in it"],
)
def test_a_file_without_prompts_is_refused_with_every_line_at_fault(
    lines: list[str], mistakes: tuple[str, ...], adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    error = said(capsys, "generate", adapter, "--file", tmp_path / "p.jsonl", code=SETTINGS)
    assert all(mistake in error for mistake in mistakes)


def test_a_folder_that_answers_nothing_and_a_base_that_has_moved_are_told_apart(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "holds neither an adapter" in said(capsys, "generate", tmp_path, "a", code=PREFLIGHT)
    assert "does not exist" in said(capsys, "merge", tmp_path / "none", code=SETTINGS)
    moved = tmp_path / "moved"
    moved.mkdir()
    config = json.loads((adapter / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "./gone/llama"}))
    error = said(capsys, "chat", moved, code=PREFLIGHT)
    assert "--model" in error
    assert "gone/llama" in error


def test_a_chat_remembers_undoes_and_begins_anew(
    adapter: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = [
        PROMPT,
        PROMPT,
        "/undo",
        "/undo",
        PROMPT,
        "/reset",
        PROMPT,
        "/system You are brief.",
        PROMPT,
        "/quit",
        "never",
    ]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(typed) + "\n"))
    assert run(["chat", str(adapter), "--max-new-tokens", "8"]) == 0
    told = capsys.readouterr()
    answers = told.out.rstrip("\n").split("\n")
    assert told.err.count(f"forgot: {PROMPT}") == 2
    first, second, undone, anew, *_ = answers
    assert first == undone == anew
    assert len([answer for answer in answers if answer == first]) == 3 + (second == first)


def test_a_chat_without_room_drops_its_oldest_turns_and_says_so(
    adapter: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([PROMPT * 4] * 6) + "\n"))
    assert run(["chat", str(adapter), "--max-new-tokens", "8"]) == 0
    assert "turns are left out" in capsys.readouterr().err


def test_a_model_without_conversations_is_sent_to_generate(
    tiny_models: TinyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"target_modules": ["c_attn"], "fan_in_fan_out": True}
    adapter = make_adapter(tiny_models.gpt2, tmp_path / "adapter", **options)
    assert "lft generate" in said(capsys, "chat", adapter, code=PREFLIGHT)
    assert said(capsys, "generate", adapter, PROMPT, "--max-new-tokens", 4).strip()


def test_a_merged_model_answers_as_the_adapter_does(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = said(capsys, "merge", adapter, "--output", tmp_path / "merged")
    assert "logits differ by at most" in out
    short = ("--max-new-tokens", 12)
    answers = {said(capsys, "generate", folder, PROMPT, *short) for folder in (adapter, tmp_path / "merged")}
    assert len(answers) == 1
    assert "no base to compare" in said(capsys, "generate", tmp_path / "merged", PROMPT, "--compare", code=PREFLIGHT)
    assert "no adapter to merge" in said(capsys, "merge", tmp_path / "merged", code=PREFLIGHT)
