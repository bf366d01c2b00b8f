"""`lft data` as users type it, on real files, a real tokenizer and a cache of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TinyModels, demo_lines, run_lft
from tests.runs import wait_for

Options = list[str | Path | int]


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    """60 chats of one question and one answer."""
    rows = [json.loads(line) for line in demo_lines(60)]
    chats = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]}
        for row in rows
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(chat) + "\n" for chat in chats), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test alone."""
    monkeypatch.setenv("LFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def chosen(models: TinyModels, data: Path, **settings: Any) -> Options:
    """The options for these data; names of settings have __ for the point."""
    sets = [word for key, value in settings.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]
    return ["--model", models.llama, "--dataset", data, *sets]


def shards(cache: Path) -> dict[Path, int]:
    """Every shard, and when it was written."""
    return {path: path.stat().st_mtime_ns for path in cache.glob("tokens/*/block-*.arrow")}


def test_what_is_prepared_once_is_found_by_every_verb_and_by_the_run(
    tiny_models: TinyModels, chats: Path, cache: Path, tmp_path: Path
) -> None:
    data = chosen(tiny_models, chats, data__max_length=96)
    made = run_lft("data", "prepare", *data, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "60 rows in 0:00" in made.stderr
    before = shards(cache)
    assert before
    again = run_lft("data", "prepare", *data, cwd=tmp_path)
    assert "60 rows, tokens found in the cache" in again.stderr
    inspected = run_lft("data", "inspect", *data, cwd=tmp_path)
    assert inspected.returncode == 0, inspected.stderr
    short: Options = [
        "--set",
        "training.max_steps=1",
        "--set",
        "benchmark.num_prompts=0",
        "--output-dir",
        tmp_path / "out",
    ]
    launched = run_lft("launch", *data, *short, cwd=tmp_path)
    assert launched.returncode == 0, launched.stdout + launched.stderr
    assert shards(cache) == before
    rehashed = run_lft("data", "prepare", *data, "--rehash", cwd=tmp_path)
    assert rehashed.returncode == 0, rehashed.stderr
    assert shards(cache) == before


def test_the_sample_shows_exactly_the_answer_and_its_end_as_trained(
    tiny_models: TinyModels, chats: Path, tmp_path: Path
) -> None:
    data = chosen(tiny_models, chats, data__max_length=200, data__held_out=0)
    done = run_lft("data", "inspect", *data, "--rows", 60, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    answers = [json.loads(line)["messages"][1]["content"] for line in chats.read_text(encoding="utf-8").splitlines()]
    assert (document["rows"], document["kept"], document["audit"]["masked"]) == (60, 60, 0)
    for sample, answer in zip(document["samples"], answers, strict=True):
        assert [piece["text"].rstrip("\n") for piece in sample["pieces"] if piece["trained"]] == [f"{answer}<|im_end|>"]
    assert document["samples"][0]["place"].endswith("chats.jsonl:1")


def test_a_bad_row_is_told_once_with_its_place_and_left_out_when_asked(
    tiny_models: TinyModels, chats: Path, tmp_path: Path
) -> None:
    with chats.open("a", encoding="utf-8") as stream:
        stream.write('{"messages": null}\n')
    refused = run_lft("data", "prepare", *chosen(tiny_models, chats), "--procs", 2, cwd=tmp_path)
    assert refused.returncode == 3
    assert refused.stderr.count("chats.jsonl:61") == 1
    assert "Traceback" not in refused.stderr
    skipping = chosen(tiny_models, chats, data__on_bad_row="skip")
    done = run_lft("data", "inspect", *skipping, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    audit = json.loads(done.stdout)["audit"]
    assert audit["bad"] == 1
    assert "chats.jsonl:61" in audit["bad_places"][0]


def test_data_that_would_train_nothing_fail_inspection_and_stop_a_run_before_its_first_step(
    tiny_models: TinyModels, chats: Path, tmp_path: Path
) -> None:
    data = chosen(tiny_models, chats, data__max_length=3)
    verbs: list[Options] = [["data", "inspect"], ["launch", "--output-dir", tmp_path / "out"]]
    for verb in verbs:
        done = run_lft(*verb, *data, cwd=tmp_path)
        assert done.returncode == 3, done.stdout + done.stderr
        assert "nothing would be trained" in done.stdout + done.stderr
        assert "raise data.max_length" in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_preparation_goes_on_where_it_stopped(
    number: signal.Signals, tiny_models: TinyModels, cache: Path, tmp_path: Path
) -> None:
    lines = [json.loads(line) for line in demo_lines(1000)]
    many = tmp_path / "many.jsonl"
    with many.open("w", encoding="utf-8") as stream:
        for count in range(100_000):
            row = lines[count % len(lines)]
            stream.write(json.dumps(row | {"prompt": f"{count}. {row['prompt']}"}) + "\n")
    command = ["data", "prepare", *chosen(tiny_models, many), "--procs", 2]
    process = subprocess.Popen(
        [sys.executable, "-m", "lft.cli.main", *map(str, command)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell that runs tests in the background has it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: bool(shards(cache)) or process.poll() is not None)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.kill()
    _, said = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number), said
    left = shards(cache)
    done = run_lft(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = shards(cache)
    assert len(after) > len(left) > 0
    assert {path: after[path] for path in left} == left


def test_freed_data_are_made_again(tiny_models: TinyModels, chats: Path, cache: Path, tmp_path: Path) -> None:
    data = chosen(tiny_models, chats)
    assert run_lft("data", "prepare", *data, cwd=tmp_path).returncode == 0
    young = run_lft("data", "prune", cwd=tmp_path)
    assert "0 bytes freed" in young.stdout
    assert shards(cache)
    assert run_lft("data", "prune", "--all", cwd=tmp_path).returncode == 0
    assert not shards(cache)
    assert run_lft("data", "prepare", *data, cwd=tmp_path).returncode == 0
    assert shards(cache)
