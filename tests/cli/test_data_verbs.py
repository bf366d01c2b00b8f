"""What `lft data` says of data that are prepared; preparing itself is in tests/e2e."""

import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lft.cli import data_inspect, data_prepare, preparing
from lft.cli.main import run
from lft.cli.preparing import told_progress
from lft.data.cache_entry import hold
from lft.data.prepare import Work
from lft.data.shard_format import MASKED
from tests.data.some_rows import SomeCounts, SomeRows, row

Captured = pytest.CaptureFixture[str]
ALPHABET = "abcdefghijkl"


def in_the_cache(training: SomeRows) -> SimpleNamespace:
    """As Prepared: these rows to train on, and two held out."""
    return SimpleNamespace(
        training=training,
        held_out=SomeRows(row(number) for number in (900, 901)),
        folder=Path("cache/tokens/key"),
        manifest=SimpleNamespace(
            rows=27, kept=27, max_length=512, pad_is_end=True, words=("columns    {a} -> {b}",), **vars(SomeCounts())
        ),
        source=SimpleNamespace(place=lambda _file, where: f"rows.jsonl:{where}"),
    )


TOKENIZER = SimpleNamespace(
    decode=lambda ids: "".join(ALPHABET[number] for number in ids), pad_token_id=2, eos_token_id=2
)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data in the cache, and a run file for them."""
    use(monkeypatch, in_the_cache(SomeRows(row(number) for number in range(25))))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "lft.yaml").write_text("model: {name: someone/model}\ndata: {source: ./rows.jsonl}\n")


def use(monkeypatch: pytest.MonkeyPatch, found: SimpleNamespace) -> None:
    monkeypatch.setattr(preparing, "find_prepared", lambda *_: found)
    monkeypatch.setattr(data_inspect, "tokenizer_of", lambda *_: lambda: (TOKENIZER, None))


@pytest.mark.usefixtures("prepared")
def test_inspect_prints_the_audit_and_rows_with_what_is_trained_between_markers(capsys: Captured) -> None:
    assert run(["data", "inspect", "--rows", "1"]) == 0
    said = capsys.readouterr().out
    for name, number, more in [
        ("rows to train on", "25", ""),
        ("rows held out", "2", ""),
        ("tokens trained", "100", "33 %"),
        ("longest row", "12", "tokens, rows.jsonl:0"),
    ]:
        assert re.search(rf"^  {name} +{number}\b *{more}$", said, re.MULTILINE), name
    assert "columns    {a} -> {b}" in said
    assert "note       padding and end are one token" in said
    assert said.endswith("rows.jsonl:0   trained: {+ +}\nabcdefgh{+ijkl+}\n")


@pytest.mark.usefixtures("prepared")
def test_on_a_terminal_what_is_trained_is_coloured(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert run(["data", "inspect", "--rows", "1"]) == 0
    assert "\x1b[2mabcdefgh\x1b[0m\x1b[32mijkl\x1b[0m" in capsys.readouterr().out


@pytest.mark.usefixtures("prepared")
def test_inspect_as_json_is_one_document_on_standard_output(capsys: Captured) -> None:
    assert run(["data", "inspect", "--json", "--rows", "3"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["audit"]["trained"] == 100
    assert [finding["level"] for finding in document["findings"]] == ["note"]
    assert [sample["place"] for sample in document["samples"]] == ["rows.jsonl:0", "rows.jsonl:8", "rows.jsonl:16"]
    assert document["samples"][0]["pieces"][1] == {"text": "ijkl", "trained": True}


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["words", "json"])
def test_inspect_of_data_that_train_nothing_still_shows_them_and_fails(
    options: list[str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, in_the_cache(SomeRows(row(number, answered=0, flags=MASKED) for number in range(25))))
    assert run(["data", "inspect", *options]) == 3
    said = capsys.readouterr()
    assert "abcdefgh" in said.out
    assert "nothing would be trained" in said.err
    assert "next   raise data.max_length" in said.err


@pytest.mark.usefixtures("prepared")
def test_preparing_what_the_cache_has_says_so_and_where_it_is(capsys: Captured) -> None:
    assert run(["data", "prepare"]) == 0
    said = capsys.readouterr()
    assert "27 rows, tokens found in the cache" in said.err
    assert "cache      cache/tokens/key" in said.out


@pytest.mark.usefixtures("prepared")
def test_preparing_uses_the_processes_asked_for_and_believes_nothing_when_rehashing(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []

    def prepare(_model: Any, _data: Any, _load: Any, work: Work, *, rehash: bool) -> SimpleNamespace:
        asked.append((work.processes, rehash))
        work.between(3, 8)
        return in_the_cache(SomeRows(row(number) for number in range(25)))

    monkeypatch.setattr(preparing, "prepare", prepare)
    assert run(["data", "prepare", "--procs", "3", "--rehash"]) == 0
    assert asked == [(3, True)]
    assert "data       27 rows in 0:00:00" in capsys.readouterr().err


@pytest.mark.usefixtures("prepared")
def test_an_interrupted_preparation_says_that_it_can_go_on_and_exits_with_130(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data_prepare, "settings_from", lambda *_: SimpleNamespace(model=None, data=None))
    monkeypatch.setattr(preparing, "find_prepared", lambda *_: None)
    monkeypatch.setattr(preparing, "prepare", prepare)
    assert run(["data", "prepare"]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err


def test_progress_says_how_far_it_is_and_how_long_it_will_take() -> None:
    assert told_progress(10, 40, 10, 0.0) == "tokenizing  10 of 40 blocks"
    assert told_progress(20, 40, 10, 30.0) == "tokenizing  20 of 40 blocks  eta 0:01:00"
    assert told_progress(1, 1, 0, 3.0) == "tokenizing  1 of 1 block  eta 0:00:00"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of three folders: used now, 40 days ago, and begun 50 days ago."""
    monkeypatch.setenv("LFT_CACHE", str(tmp_path))
    for name, days in {"tokens/new": 0, "tokens/old": 40, "spool/.begun": 50}.items():
        (tmp_path / name).mkdir(parents=True)
        shard = tmp_path / name / "block"
        shard.write_bytes(b"x" * 3 * 2**20)
        os.utime(shard, (time.time() - days * 86400,) * 2)
    return tmp_path


def test_prune_frees_what_is_old_and_says_what_and_how_much(cache: Path, capsys: Captured) -> None:
    assert run(["data", "prune", "--older-than", "30d"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "  freed  spool/.begun  3.0 MiB, used 50 days ago, unfinished",
        "  freed  tokens/old  3.0 MiB, used 40 days ago, unfinished",
        "  kept   tokens/new  3.0 MiB, used 0 s ago, unfinished",
        f"  6.0 MiB freed in {cache}; 1 folder kept",
    ]
    assert sorted(path.name for path in cache.glob("*/*")) == ["new"]


def test_prune_all_frees_everything_but_what_is_in_use(cache: Path, capsys: Captured) -> None:
    held = hold(cache / "tokens" / "new")
    assert held is not None
    with held:
        assert run(["data", "prune", "--all"]) == 0
    assert re.search(r"kept   tokens/new .*in use", capsys.readouterr().out)
    assert sorted(path.name for path in cache.glob("*/*")) == ["new"]
    assert run(["data", "prune", "--all"]) == 0
    assert not list(cache.glob("*/*"))


def test_a_dry_run_frees_nothing(cache: Path, capsys: Captured) -> None:
    before = sorted(cache.rglob("*"))
    assert run(["data", "prune", "--dry-run"]) == 0
    assert f"6.0 MiB would be freed in {cache}" in capsys.readouterr().out
    assert sorted(path for path in cache.rglob("*") if path.name != "in-use") == before


@pytest.mark.usefixtures("cache")
def test_a_time_that_is_none_is_refused_with_what_is_expected(capsys: Captured) -> None:
    assert run(["data", "prune", "--older-than", "soon"]) == 2
    assert "a number with s, min, h or d is expected, such as 30d" in capsys.readouterr().err


def test_a_verb_of_data_that_does_not_exist_is_answered_with_the_nearest(capsys: Captured) -> None:
    assert run(["data", "ispect"]) == 2
    assert "did you mean inspect?" in capsys.readouterr().err
