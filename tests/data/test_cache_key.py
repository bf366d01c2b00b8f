"""The name of prepared tokens: what changes it and what does not."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lft.core.settings import DataSettings, ModelSettings
from lft.data import cache_key as module
from lft.data.cache_key import cache_key, tokenizer_in_memory, tokenizer_on_disk
from lft.train.model import load_tokenizer
from tests.conftest import TinyModels

DATA = DataSettings(source="./rows.jsonl")
SOURCE = [["digest of the rows"]]


def key(**changes: Any) -> str:
    """The key of DATA with changed settings."""
    return cache_key(SOURCE, "tokenizer", DATA.model_copy(update=changes), None)


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 99},
        {"loss_on": "all"},
        {"text_columns": ("a",)},
        {"prompt_template": "{a}"},
        {"completion_template": "{a}"},
        {"num_samples": 7},
    ],
    ids=str,
)
def test_every_setting_that_decides_the_tokens_is_another_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


@pytest.mark.parametrize(
    "change",
    [{"source": "./moved.jsonl"}, {"held_out": 0.5}, {"packing": True}, {"on_bad_row": "skip"}, {"streaming": True}],
    ids=str,
)
def test_no_setting_that_leaves_the_tokens_alone_is_another_key(change: dict[str, Any]) -> None:
    assert key(**change) == key()


def test_every_setting_of_the_data_has_been_thought_of() -> None:
    elsewhere = {
        "source",
        "config",
        "split",
        "data_files",
        "revision",
        "streaming",
    }  # they decide the source's identity
    later = {"held_out", "packing", "on_bad_row"}
    assert set(DataSettings.model_fields) == {*module.SETTINGS, "chat_template", *elsewhere, *later}


def test_data_template_tokenizer_stage_and_libraries_are_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = key()
    others = [
        cache_key([["other rows"]], "tokenizer", DATA, None),
        cache_key(SOURCE, "other tokenizer", DATA, None),
        cache_key(SOURCE, "tokenizer", DATA, "{{ messages }}"),
    ]
    monkeypatch.setattr(module, "VERSION", 99)
    others.append(key())
    monkeypatch.undo()
    for library in module.LIBRARIES:
        monkeypatch.setattr(module, "version", lambda name, other=library: "0" if name == other else "1")
        others.append(key())
    assert len({usual, *others}) == 1 + len(others)


def copied(model: Path, folder: Path) -> Path:
    """A model's folder to change."""
    return Path(shutil.copytree(model, folder / "copy"))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"])
def test_each_file_of_the_tokenizer_counts_by_its_bytes(tiny_models: TinyModels, tmp_path: Path, name: str) -> None:
    folder = copied(tiny_models.llama, tmp_path)
    before = tokenizer_on_disk(ModelSettings(name=str(folder)))
    assert before == tokenizer_on_disk(ModelSettings(name=str(tiny_models.llama)))
    with (folder / name).open("a") as stream:
        stream.write(" ")
    assert tokenizer_on_disk(ModelSettings(name=str(folder))) != before


def test_weights_training_leftovers_and_times_do_not_count(tiny_models: TinyModels, tmp_path: Path) -> None:
    folder = copied(tiny_models.llama, tmp_path)
    before = tokenizer_on_disk(ModelSettings(name=str(folder)))
    (folder / "trainer_state.json").write_text("{}")
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu", "dtype": "float16"}))
    os.utime(folder / "tokenizer.json", (1, 1))
    assert tokenizer_on_disk(ModelSettings(name=str(folder))) == before
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 17}))
    assert tokenizer_on_disk(ModelSettings(name=str(folder))) != before


def test_a_model_that_is_not_here_yet_has_no_digest(tmp_path: Path) -> None:
    assert tokenizer_on_disk(ModelSettings(name="nobody/nothing")) is None
    (tmp_path / "config.json").write_text("{}")
    assert tokenizer_on_disk(ModelSettings(name=str(tmp_path))) is None


def test_a_tokenizer_changed_in_memory_is_another_one(tiny_models: TinyModels) -> None:
    usual = tokenizer_in_memory(load_tokenizer(str(tiny_models.llama)), 512)
    assert usual == tokenizer_in_memory(load_tokenizer(str(tiny_models.llama)), 512)
    added, template = load_tokenizer(str(tiny_models.llama)), load_tokenizer(str(tiny_models.llama))
    added.add_tokens(["<new>"])
    template.chat_template = "{{ messages[0].content }}"
    others = [
        tokenizer_in_memory(added, 512),
        tokenizer_in_memory(template, 512),
        tokenizer_in_memory(load_tokenizer(str(tiny_models.llama)), 64),
    ]
    assert len({usual, *others}) == 4
