"""The whole stage in one process: what becomes of rows that mislead, and of data that change."""

import json
from pathlib import Path
from typing import Any

import pytest

from lft.core.errors import DataError, PreflightError
from lft.core.rank import Rank
from lft.core.settings import DataSettings, ModelSettings
from lft.data import prepare as stage
from lft.data.cache import full_disk_named
from lft.data.prepare import Work, prepare
from lft.data.prepared import Prepared
from lft.train.model import tokenizer_loader
from tests.conftest import TinyModels


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test only."""
    monkeypatch.setenv("LFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def made(models: TinyModels, rows: Any, folder: Path, rehash: bool = False, **data: Any) -> tuple[Prepared, list[str]]:
    """These rows (or a file), prepared for the tiny Llama; and what was said."""
    path = rows if isinstance(rows, Path) else folder / "rows.jsonl"
    if not isinstance(rows, Path):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    said: list[str] = []
    model = ModelSettings(name=str(models.llama))
    settings = DataSettings.model_validate({"source": str(path), "held_out": 0} | data)
    load = tokenizer_loader(model, said.append)
    return prepare(model, settings, load, Work(Rank(), said.append), rehash=rehash), said


def trained(prepared: Prepared, models: TinyModels) -> list[str]:
    """The trained text of each row."""
    tokenizer, _ = tokenizer_loader(ModelSettings(name=str(models.llama)), print)()
    rows = [prepared.training[index]["labels"] for index in range(len(prepared.training))]
    return [str(tokenizer.decode(labels[labels >= 0].tolist())) for labels in rows]


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    """One question and its answer; `more` belongs to the answer."""
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer} | more],
    }


@pytest.mark.usefixtures("cache")
def test_a_template_that_treats_late_rows_specially_is_rendered_for_them(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    template = (
        "{% set mark = '</think>' %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content.split(mark)[-1] if mark in m.content else m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    rows = [chat(f"hi {n}", f"<think>secret</think>yo {n}" if n > 10 else f"yo {n}") for n in range(20)]
    prepared, _ = made(tiny_models, rows, tmp_path, chat_template=template)
    assert trained(prepared, tiny_models) == [f"yo {n}<|im_end|>" for n in range(20)]


@pytest.mark.usefixtures("cache")
def test_an_answer_of_weight_0_is_context_and_columns_nobody_uses_are_named(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    rows = [chat("a", "kept"), {**chat("b", "secret", weight=0), "topic": "x"}, {**chat("c", "too"), "topic": "y"}]
    prepared, _ = made(tiny_models, rows, tmp_path)
    assert trained(prepared, tiny_models) == ["kept<|im_end|>", "too<|im_end|>"]
    assert prepared.manifest.words[0] == "columns    chat in messages (OpenAI form); not used: topic"


@pytest.mark.usefixtures("cache")
def test_tool_calls_that_the_template_leaves_out_are_bad_rows(tiny_models: TinyModels, tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "look_up", "arguments": {"word": "dog"}}}
    with pytest.raises(DataError, match="leaves out the tool call of turn 2, look_up"):
        made(tiny_models, [chat("a", "b"), chat("c", "", tool_calls=[call])], tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": ["p"], "completion": "a"}, "column prompt should ask, but holds list"),
        ({"prompt": {"q": "p"}, "completion": "a"}, "column prompt should ask, but holds object"),
        ({"messages": '[{"role": "user"}]', "id": "x"}, "column messages should hold a conversation, but holds text"),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "no column answers prompt"),
    ],
)
@pytest.mark.usefixtures("cache")
def test_a_column_that_cannot_be_what_its_name_says_is_refused(
    tiny_models: TinyModels, tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        made(tiny_models, [row] * 5, tmp_path)


@pytest.mark.usefixtures("cache")
def test_a_conversation_under_another_name_is_a_conversation(tiny_models: TinyModels, tmp_path: Path) -> None:
    rows = [{"chat": chat(f"q {n}", f"a {n}")["messages"], "id": f"x{n}"} for n in range(3)]
    prepared, _ = made(tiny_models, rows, tmp_path)
    assert trained(prepared, tiny_models) == [f"a {n}<|im_end|>" for n in range(3)]


def test_data_changed_while_they_are_prepared_are_not_kept(
    tiny_models: TinyModels, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"q {n}", "completion": f"a {n}"} for n in range(30)]
    make = stage._make

    def changed_meanwhile(*arguments: Any) -> Any:
        path = tmp_path / "rows.jsonl"
        path.write_text(path.read_text().replace("a 2", "b 2"), encoding="utf-8")
        return make(*arguments)

    monkeypatch.setattr(stage, "_make", changed_meanwhile)
    with pytest.raises(DataError, match="changed while it was being prepared"):
        made(tiny_models, rows, tmp_path)
    monkeypatch.undo()
    monkeypatch.setenv("LFT_CACHE", str(cache))
    prepared, _ = made(tiny_models, rows, tmp_path)
    assert trained(prepared, tiny_models) == [f"a {n}<|im_end|>" for n in range(30)]


@pytest.mark.usefixtures("cache")
def test_rehash_reads_sources_that_are_written_out_first(
    tiny_models: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as if the changed byte lay between the samples
    monkeypatch.setattr("lft.data.spool.file_identity", lambda path: [path.stat().st_size])
    monkeypatch.setattr("lft.data.line_file.file_identity", lambda path: [path.stat().st_size])
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\n" + "".join(f"q {n},a {n}\n" for n in range(10)), encoding="utf-8")
    made(tiny_models, path, tmp_path)
    path.write_text(path.read_text().replace("a 7", "b 7"), encoding="utf-8")
    assert "a 7<|im_end|>" in trained(made(tiny_models, path, tmp_path)[0], tiny_models)
    prepared, said = made(tiny_models, path, tmp_path, rehash=True)
    assert "data       all bytes read again: 1 of 1 blocks are others than before" in said
    assert "b 7<|im_end|>" in trained(prepared, tiny_models)


def test_a_full_disk_is_told_as_the_cache_s(tmp_path: Path) -> None:
    for error in (OSError(28, "No space left on device"), OSError("Error writing. Detail: [errno 28] No space")):
        with (
            pytest.raises(PreflightError, match="the disk of the cache is full") as caught,
            full_disk_named(tmp_path / "x"),
        ):
            raise error
        assert "lft data prune" in caught.value.next_step
    with pytest.raises(OSError, match="other"), full_disk_named(tmp_path / "x"):
        raise OSError(5, "other")
