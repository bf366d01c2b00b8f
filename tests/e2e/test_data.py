"""The data stage as a user meets it: prepared ahead or by a run, interrupted, wrong, inspected, packed."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TinyModels, demo_lines, run_lft
from tests.e2e.test_launch import write_run_file

DEADLINE_SECONDS = 120.0


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test only."""
    monkeypatch.setenv("LFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """About 6 MB of distinct rows, which make a dozen blocks."""
    path = tmp_path_factory.mktemp("big") / "big.jsonl"
    lines = demo_lines(1000)
    with path.open("w", encoding="utf-8") as stream:
        for turn in range(40):
            for line in lines:
                row = json.loads(line)
                stream.write(json.dumps({"prompt": f"{turn}: {row['prompt']}", "completion": row["completion"]}) + "\n")
    return path


def shards(cache: Path) -> dict[str, tuple[str, int]]:
    """Every shard's name, digest and time."""
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in cache.glob("tokens/*/block-*.arrow")
    }


def finished(cache: Path) -> list[Path]:
    """The manifests."""
    return list(cache.glob("tokens/*/manifest.json"))


def run_file(folder: Path, model: Path, source: Path, **changes: Any) -> Path:
    """A run over `source` with the settings of the launch tests."""
    return write_run_file(folder / "run.yaml", model, source, folder / "out", **changes)


def test_one_two_and_three_processes_prepare_the_same_bytes(
    tiny_models: TinyModels, tmp_path: Path, big_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {}
    for procs in (1, 2, 3):
        monkeypatch.setenv("LFT_CACHE", str(tmp_path / f"cache-{procs}"))
        file = run_file(tmp_path, tiny_models.llama, big_file)
        done = run_lft("data", "prepare", file, "--procs", procs, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        made[procs] = {name: digest for name, (digest, _) in shards(tmp_path / f"cache-{procs}").items()}
        assert len(made[procs]) > 8
    assert made[1] == made[2] == made[3]


def test_a_killed_preparation_goes_on_where_it_stopped(
    tiny_models: TinyModels, tmp_path: Path, big_file: Path, cache: Path
) -> None:
    file = run_file(tmp_path, tiny_models.llama, big_file)
    command = [sys.executable, "-m", "lft.cli.main", "data", "prepare", str(file), "--procs", "2"]
    first = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + DEADLINE_SECONDS
    while len(list(cache.glob("tokens/*/block-*.arrow"))) < 3:
        assert first.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(DEADLINE_SECONDS)
    before = shards(cache)
    assert not finished(cache)
    again = run_lft("data", "prepare", file, "--procs", 2, cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    after = shards(cache)
    assert {name: after[name] for name in before} == before
    assert len(after) > len(before)
    assert len(finished(cache)) == 1


def test_a_run_uses_what_was_prepared_ahead_and_makes_no_shard(
    tiny_models: TinyModels, tmp_path: Path, cache: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(demo_lines(72)), encoding="utf-8")
    file = run_file(tmp_path, tiny_models.llama, source, benchmark={"num_prompts": 0})
    assert run_lft("data", "prepare", file, cwd=tmp_path).returncode == 0
    before = shards(cache)
    assert "found in the cache" in run_lft("plan", file, cwd=tmp_path).stdout
    done = run_lft("launch", file, "--cpu-procs", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shards(cache) == before
    assert "57 rows to train on, 15 held out" in done.stdout


def test_all_bad_rows_are_listed_before_anything_is_trained_and_can_be_left_out(
    tiny_models: TinyModels, tmp_path: Path, cache: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    lines = [*demo_lines(60), '{"prompt": "a", "completion": null}', "{broken", '{"prompt": 1.5, "completion": ["x"]}']
    source.write_bytes("\n".join(lines).encode() + b'\n{"prompt": "\xff", "completion": "b"}\n')
    file = run_file(tmp_path, tiny_models.llama, source, benchmark={"num_prompts": 0})
    done = run_lft("launch", file, "--cpu-procs", 2, cwd=tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == 3
    for line in (61, 62, 63, 64):
        assert f"rows.jsonl:{line}" in said
    assert "data.on_bad_row=skip" in said
    assert "Traceback" not in said
    again = run_lft("launch", file, "--cpu-procs", 2, "--set", "data.on_bad_row=skip", cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "45 rows to train on, 15 held out" in again.stdout
    assert "4 bad rows" in again.stdout
    # left out once, they are still an error for whoever does not ask for it
    strict = run_lft("launch", file, "--cpu-procs", 2, cwd=tmp_path)
    assert strict.returncode == 3
    assert "rows.jsonl:62" in strict.stdout + strict.stderr


def conversations(count: int) -> list[str]:
    """Chats of two questions and answers, and a system prompt in every third."""
    rows = [json.loads(line) for line in demo_lines(2 * count)]
    lines = []
    for index in range(count):
        turns = [
            turn
            for row in rows[2 * index : 2 * index + 2]
            for turn in (
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]},
            )
        ]
        system = [{"role": "system", "content": "Be brief."}] if index % 3 == 0 else []
        lines.append(json.dumps({"messages": system + turns}))
    return lines


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_conversations_are_trained_packed_and_compared_with_and_without_a_chat_template(
    tiny_models: TinyModels, tmp_path: Path, name: str
) -> None:
    source = tmp_path / "chats.jsonl"
    source.write_text("\n".join(conversations(60)), encoding="utf-8")
    data = {"packing": True, "max_length": 128, "held_out": 10}
    file = run_file(
        tmp_path,
        getattr(tiny_models, name),
        source,
        data=data,
        training={"batch_size": 1, "global_batch_size": 4, "num_epochs": 4},
        benchmark={"num_prompts": 5},
    )
    done = run_lft("launch", file, "--cpu-procs", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "out" / "run" / "report.json").read_text(encoding="utf-8"))
    losses = [entry["loss"] for entry in report["training"]["losses"]]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert report["benchmark"]["prompts"] == 5
    sample = report["benchmark"]["samples"][0]
    assert sample["reference"]
    assert "chat in messages" in done.stdout
    assert re.search(r"50 rows in \d+ packs of at most 128 tokens, \d\d % filled", done.stdout)


def test_several_sources_are_used_as_often_as_their_weights_say(tiny_models: TinyModels, tmp_path: Path) -> None:
    lines = demo_lines(80)
    (tmp_path / "a.jsonl").write_text("\n".join(lines[:40]), encoding="utf-8")
    (tmp_path / "b.jsonl").write_text("\n".join(lines[40:]), encoding="utf-8")
    sources = [{"source": str(tmp_path / "a.jsonl"), "weight": 2}, {"source": str(tmp_path / "b.jsonl")}]
    file = run_file(
        tmp_path, tiny_models.llama, tmp_path, data={"source": sources, "held_out": 0}, training={"max_steps": 2}
    )
    done = run_lft("launch", file, "--cpu-procs", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "120 rows to train on, 0 held out" in done.stdout


def test_data_that_would_train_nothing_stops_the_run_and_says_what_to_change(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    source = tmp_path / "long.jsonl"
    row = {"prompt": "a very long question " * 200, "completion": "yes"}
    source.write_text("\n".join(json.dumps(row | {"completion": f"yes {n}"}) for n in range(50)), encoding="utf-8")
    done = run_lft("launch", run_file(tmp_path, tiny_models.llama, source), "--cpu-procs", 2, cwd=tmp_path)
    assert done.returncode == 3
    assert "max_length" in done.stdout + done.stderr
    assert not (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_a_changed_block_is_found_by_rehash_though_size_time_and_samples_are_the_same(
    tiny_models: TinyModels, tmp_path: Path, big_file: Path, cache: Path
) -> None:
    source = tmp_path / "big.jsonl"
    source.write_bytes(big_file.read_bytes())
    file = run_file(tmp_path, tiny_models.llama, source)
    assert run_lft("data", "prepare", file, cwd=tmp_path).returncode == 0
    before, status = shards(cache), source.stat()
    with source.open("r+b") as stream:
        stream.seek(1_100_000)
        stream.seek(stream.tell() + stream.read(2000).index(b'"completion": "') + 15)
        stream.write(b"XX")
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run_lft("data", "prepare", file, cwd=tmp_path).returncode == 0
    assert shards(cache) == before
    done = run_lft("data", "prepare", file, "--rehash", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    after = shards(cache)
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == ["block-000002.arrow"]
