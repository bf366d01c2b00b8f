"""Loading models: a GGUF becomes trainable once, wherever it is asked for from; devices; what cannot be had."""

import importlib.util
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lft.core.errors import DataError, PreflightError
from lft.core.precision import Device
from lft.core.settings import Precision, Strategy
from lft.demo import demo_settings
from lft.train.gguf import converted_folder
from lft.train.model import base_precision, device_map, load_base_model, load_tokenizer, resolve_model
from tests.conftest import TinyModels


def _convert(gguf: Path, cache: Path) -> None:
    converted_folder(gguf, cache, print)


def test_a_gguf_asked_for_by_two_processes_at_once_becomes_one_whole_model(tmp_path: Path) -> None:
    gguf = Path(str(demo_settings()["model.name"]))
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=_convert, args=(gguf, tmp_path)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(300)
    assert [process.exitcode for process in both] == [0, 0]
    said: list[str] = []
    folder = converted_folder(gguf, tmp_path, said.append)
    assert said == []
    assert sorted(path.name for path in (tmp_path / "models").iterdir() if path.suffix != ".lock") == [folder.name]
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.bfloat16
    assert model.num_parameters() == 134_515_008
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=2, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0])


def test_a_damaged_gguf_is_one_clear_error_and_leaves_no_model(tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(DataError, match=r"model\.gguf cannot be read as a GGUF model"):
        converted_folder(gguf, tmp_path / "cache", print)
    assert [path.suffix for path in (tmp_path / "cache" / "models").iterdir()] == [".lock"]


def test_without_the_gguf_package_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(PreflightError, match=r"pip install 'lft\[gguf\]'"):
        converted_folder(tmp_path / "model.gguf", tmp_path, print)


@pytest.mark.parametrize(
    ("strategy", "device", "expected"),
    [
        ("single", "cpu", None),
        ("single", "cuda", {"": 1}),
        ("ddp", "cuda", {"": 1}),
        ("zero2", "cuda", {"": 1}),
        ("zero3", "cuda", None),
        ("fsdp", "cuda", None),
        ("device-map", "cuda", "auto"),
    ],
)
def test_a_rank_keeps_to_its_own_gpu_unless_the_strategy_spreads_the_model(
    strategy: Strategy, device: Device, expected: object
) -> None:
    assert device_map(strategy, device, 1) == expected


def test_a_model_that_cannot_be_had_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"none does not exist"):
        resolve_model(str(tmp_path / "none"), print)
    with pytest.raises(PreflightError, match=r'the tokenizer of "nobody/nothing" cannot be loaded'):
        load_tokenizer("nobody/nothing")


def test_a_folder_with_damaged_weights_is_one_clear_error(tiny_models: TinyModels, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_models.gpt2, folder)
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(PreflightError, match=r"the model of .* cannot be loaded"):
        load_base_model(str(folder), "fp32", None)


def test_half_precision_is_refused_on_a_cpu_and_bf16_kept_where_asked(tiny_models: TinyModels) -> None:
    with pytest.raises(PreflightError, match="fp16 on a CPU"):
        base_precision(str(tiny_models.gpt2), "fp16", "cpu")
    cases: list[tuple[Precision | None, torch.dtype]] = [("bf16", torch.bfloat16), (None, torch.float32)]
    for asked, expected in cases:
        precision, _ = base_precision(str(tiny_models.gpt2), asked, "cpu")
        assert load_base_model(str(tiny_models.gpt2), precision, None).dtype == expected
