"""Merged models are what base and adapter are, whatever the variant, in the memory of one shard."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lft.core.adapter_folder import find_tuned
from lft.core.errors import AdapterError, PreflightError
from lft.train.merged_model import Merged, merge
from tests.conftest import TinyModels

LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj"]


def make_adapter(base: Path, folder: Path, **options: Any) -> Path:
    """An adapter by plain peft whose update is not zero."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    usual: dict[str, Any] = {"r": 4, "target_modules": LLAMA, "task_type": "CAUSAL_LM"}
    adapted = get_peft_model(model, LoraConfig(**usual | options))
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
        if "magnitude" in name:
            parameter.data *= 1.1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft says that it saves adapted embeddings too
        adapted.save_pretrained(str(folder))
    return folder


def merged(adapter: Path, output: Path, **options: Any) -> Merged:
    return merge(find_tuned(adapter), output, lambda _line: None, **options)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=torch.arange(3, 40)[None]).logits
    return found


def same_logits(base: Path, adapter: Path, output: Path) -> None:
    """Equal in float32 but for the order of sums; and not those of the base."""
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    without = logits(plain)
    wanted = logits(PeftModel.from_pretrained(plain, str(adapter)))
    found = logits(AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert float((wanted - without).norm()) > 0.01 * float(wanted.norm())


VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True, "r": 16},
    "dora": {"use_dora": True},
    "other ranks for some layers": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 32}},
    "all linear layers": {"target_modules": "all-linear"},
    "only some blocks": {"layers_to_transform": [1]},
    "a whole norm and block": {"modules_to_save": ["model.norm", "layers.0.mlp"]},
    "the tied output projection": {"target_modules": [*LLAMA, "lm_head"]},
    "the tied embeddings": {"target_modules": [*LLAMA, "embed_tokens"]},
    "the tied output projection trained whole": {"modules_to_save": ["lm_head"]},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.filterwarnings(
    "ignore:Model has `tie_word_embeddings=True`", "ignore:Model with `tie_word_embeddings=True`"
)
def test_a_merged_llama_has_the_logits_of_base_and_adapter(
    variant: str, tiny_models: TinyModels, tmp_path: Path
) -> None:
    adapter = make_adapter(tiny_models.llama, tmp_path / "adapter", **VARIANTS[variant])
    done = merged(adapter, tmp_path / "merged")
    assert done.likeness is not None
    assert done.likeness.same == done.likeness.places
    same_logits(tiny_models.llama, adapter, tmp_path / "merged")


def test_a_merged_gpt2_whose_weights_lie_in_columns_has_them_too(tiny_models: TinyModels, tmp_path: Path) -> None:
    options = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
    adapter = make_adapter(tiny_models.gpt2, tmp_path / "adapter", **options)
    merged(adapter, tmp_path / "merged")
    same_logits(tiny_models.gpt2, adapter, tmp_path / "merged")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weights_keep_their_type_and_are_rounded_once(
    dtype: torch.dtype, tiny_models: TinyModels, tmp_path: Path
) -> None:
    base = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(tiny_models.llama, dtype=dtype).save_pretrained(base)
    for file in tiny_models.llama.glob("*token*"):
        (base / file.name).write_bytes(file.read_bytes())
    adapter = make_adapter(base, tmp_path / "adapter")
    merged(adapter, tmp_path / "merged")
    found = load_file(tmp_path / "merged" / "model.safetensors")
    wanted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(adapter)
    ).merge_and_unload()
    for name, tensor in found.items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, wanted.state_dict()[name].to(dtype)), name


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_base_of_several_files_becomes_a_model_of_as_many(
    suffix: str, tiny_models: TinyModels, tmp_path: Path
) -> None:
    base = tmp_path / "sharded"
    model = AutoModelForCausalLM.from_pretrained(tiny_models.llama, dtype=torch.float32)
    model.save_pretrained(base, max_shard_size="300KB")
    files = len(list(base.glob("model-*.safetensors")))
    assert files > 2
    if suffix == "bin":
        as_pickles(base)
    adapter = (
        make_adapter(base, tmp_path / "adapter")
        if suffix == "safetensors"
        else make_adapter(tiny_models.llama, tmp_path / "adapter")
    )
    done = merge(find_tuned(adapter, str(base)), tmp_path / "merged", lambda _line: None, check=False)
    assert len(list((tmp_path / "merged").glob("model-*.safetensors"))) == files
    assert done.changed == 8
    same_logits(tiny_models.llama, adapter, tmp_path / "merged")


def as_pickles(folder: Path) -> None:
    """The same weights as older models have them."""
    for path in folder.glob("model-*.safetensors"):
        torch.save(load_file(path), folder / path.name.replace("model", "pytorch_model").replace("safetensors", "bin"))
        path.unlink()
    index = folder / "model.safetensors.index.json"
    text = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
    (folder / "pytorch_model.bin.index.json").write_text(text)
    index.unlink()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pissa": ({"init_lora_weights": "pissa"}, "init_lora_weights is pissa"),
    "biases": ({"bias": "all"}, "bias is all"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_merged_is_refused_by_name_and_nothing_is_written(
    name: str, tiny_models: TinyModels, tmp_path: Path
) -> None:
    options, words = REFUSED[name]
    adapter = make_adapter(tiny_models.llama, tmp_path / "adapter", **options)
    with pytest.raises(PreflightError, match=words):
        merged(adapter, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_an_adapter_of_another_model_is_refused(tiny_models: TinyModels, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_models.llama, tmp_path / "adapter")
    with pytest.raises(PreflightError, match="does not fit"):
        merge(find_tuned(adapter, str(tiny_models.gpt2)), tmp_path / "merged", lambda _line: None)
    assert not (tmp_path / "merged").exists()


def test_a_damaged_adapter_leaves_nothing_behind(tiny_models: TinyModels, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_models.llama, tmp_path / "adapter")
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: tensor * float("nan") for name, tensor in weights.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="NaN"):
        merged(adapter, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_a_folder_that_is_there_is_left_alone(tiny_models: TinyModels, tmp_path: Path) -> None:
    adapter = make_adapter(tiny_models.llama, tmp_path / "adapter")
    (tmp_path / "merged").mkdir()
    with pytest.raises(PreflightError, match="is there already"):
        merged(adapter, tmp_path / "merged")


MEASURE = """
import sys
from pathlib import Path
from lft.core.adapter_folder import find_tuned
from lft.train.merged_model import merge
def peak(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
def merged(adapter, output): merge(find_tuned(Path(adapter)), Path(output), lambda line: None, check=False)
merged(*sys.argv[1:3])  # a tiny one first: what merging imports is not counted
before = peak()
merged(*sys.argv[3:])
print(peak() - before)
"""


def test_merging_takes_the_memory_of_a_shard_and_not_of_the_model(tiny_models: TinyModels, tmp_path: Path) -> None:
    """370 MB of weights in files of at most 40 MB: what is read, what is written, and a few tensors of 12 MB."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    config = json.loads((tiny_models.llama / "config.json").read_text())
    wide = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8, "num_attention_heads": 8}
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(type_of(tiny_models.llama)(**config | wide | {"head_dim": 128}))
    made.to_empty(device="cpu")
    for parameter in made.parameters():
        parameter.data.fill_(0.01)
    made.save_pretrained(base, max_shard_size="40MB")
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    assert size > 360e6
    make_adapter(base, adapter, target_modules="all-linear")
    del made
    tiny = make_adapter(tiny_models.llama, tmp_path / "tiny")
    folders = [tiny, tmp_path / "tiny merged", adapter, tmp_path / "merged"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, folders)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 0.6 * size  # 180 MB of 372 on two machines; the whole would be more than 1


def type_of(folder: Path) -> Any:
    from transformers import AutoConfig

    return type(AutoConfig.from_pretrained(folder))
