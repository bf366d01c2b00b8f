"""Variants of LoRA: each trains as a plain loop with peft does, goes on exactly, and its folder opens with plain peft."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, set_seed

from finetune_cli import LLMFineTuner
from lft.core.errors import PreflightError
from lft.core.settings import LoraSettings, Strategy, TrainingSettings
from lft.demo.tiny import make_tiny
from lft.train.adapter import adapter_files, gather_adapter, read_weights
from tests.conftest import TinyModels
from tests.train.ranks import adapter, difference, logs, losses, make_order, trained

STEPS, RATE, TARGETS = 6, 5e-3, ["q_proj", "v_proj"]
VARIANTS: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "gaussian": {"init_lora_weights": "gaussian", "use_rslora": True},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "olora": {"init_lora_weights": "olora"},
    "pissa": {"init_lora_weights": "pissa", "use_rslora": True, "modules_to_save": ["norm"]},
    "pissa-niter": {"init_lora_weights": "pissa_niter_4"},
    "pissa-dora": {"init_lora_weights": "pissa", "use_dora": True},
    "loraplus": {"loraplus_lr_ratio": 8.0},
    "layers": {"layers_to_transform": [1]},
    "modules": {"modules_to_save": ["lm_head", "norm", "embed_tokens"]},
}
SHORT = ("rslora", "dora", "pissa", "loraplus", "modules")
"""Those of every suite; the others are tried with the long ones."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights whose output projection is its own."""
    folder, _ = make_tiny(tmp_path_factory.mktemp("untied"))
    config = LlamaConfig.from_pretrained(folder)
    config.tie_word_embeddings = False
    torch.manual_seed(1)
    model = LlamaForCausalLM(config)
    torch.nn.init.normal_(model.lm_head.weight, std=0.1)
    model.save_pretrained(folder)
    return folder


def examples() -> list[dict[str, list[int]]]:
    """Rows of several lengths, the first tokens of which are not trained."""
    numbers = torch.Generator().manual_seed(3)
    rows = [torch.randint(3, 250, (length,), generator=numbers).tolist() for length in (5, 9, 12, 16, 20, 7, 11, 14)]
    return [{"input_ids": row, "labels": [-100, -100, *row[2:]]} for row in rows]


def run(model: Path, out: Path, variant: dict[str, Any], **options: Any) -> LLMFineTuner:
    """Six steps, each over all rows, as a user of the library makes them."""
    finetuner = LLMFineTuner(str(model), str(out))
    finetuner.load_model(precision=options.pop("precision", None), quantization=options.pop("quantization", "none"))
    settings = LoraSettings.model_validate(variant)
    finetuner.setup_lora(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=TARGETS, variant=settings)
    training = TrainingSettings(max_grad_norm=0, lr_scheduler="constant", save_every=2, keep_last=9, log_every=1)
    rows = Dataset.from_list(examples())
    finetuner.train(rows, STEPS, 8, RATE, gradient_accumulation_steps=1, settings=training, **options)
    return finetuner


def batch() -> dict[str, torch.Tensor]:
    rows = examples()
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, fill: int) -> torch.Tensor:
        return torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in rows])

    labels = padded("labels", -100)
    mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows])
    return {"input_ids": padded("input_ids", 2), "attention_mask": mask, "labels": labels}


def loss_of(model: torch.nn.Module) -> torch.Tensor:
    whole = batch()
    logits = model(input_ids=whole["input_ids"], attention_mask=whole["attention_mask"]).logits[:, :-1]
    return cross_entropy(logits.flatten(0, 1).float(), whole["labels"][:, 1:].flatten(), ignore_index=-100)


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    """Of the rows' own tokens."""
    whole = batch()
    model.eval()
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=whole["input_ids"], attention_mask=whole["attention_mask"]).logits
    return found[whole["attention_mask"] == 1]


def by_peft_alone(model: Path, variant: dict[str, Any]) -> tuple[PeftModel, list[float]]:
    """The same training, written down with peft and torch only."""
    base, options = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), dict(variant)
    ratio = options.pop("loraplus_lr_ratio", None)
    if "norm" in options.get("modules_to_save", ()):
        options["modules_to_save"] = [{"norm": "model.norm"}.get(name, name) for name in options["modules_to_save"]]
    set_seed(42)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM", **options)
    tuned: Any = get_peft_model(base, config)
    weights = [parameter for parameter in tuned.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0)
    if ratio:
        optimizer = create_loraplus_optimizer(tuned, torch.optim.AdamW, lr=RATE, loraplus_lr_ratio=ratio)  # type: ignore[assignment]
    found = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(tuned)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return tuned, found


def close(one: torch.Tensor, other: torch.Tensor, most: float) -> None:
    assert float((one - other).abs().max()) < most


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SHORT else pytest.mark.long) for name in VARIANTS]
)
def test_a_variant_trains_as_peft_alone_does_goes_on_exactly_and_opens_with_plain_peft(
    name: str, llama: Path, tmp_path: Path
) -> None:
    variant = VARIANTS[name]
    finetuner = run(llama, tmp_path / "out", variant)
    assert finetuner.peft_model is not None
    expected, course = by_peft_alone(llama, variant)
    assert course[-1] < course[0] - 0.02
    ours = logits_of(finetuner.peft_model)
    close(ours, logits_of(expected), 1e-4)
    assert loss_of(finetuner.peft_model).item() == pytest.approx(loss_of(expected).item(), abs=1e-5)

    fresh = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    untouched = logits_of(fresh)
    close(logits_of(PeftModel.from_pretrained(fresh, str(tmp_path / "out"))), ours, 2e-5)
    with finetuner.measuring(use_finetuned=False) as base:
        assert torch.equal(logits_of(base), untouched), "the base that is compared with is the one everybody has"

    checkpoint = tmp_path / "checkpoint-2"
    shutil.copytree(tmp_path / "out" / "checkpoint-2", checkpoint)
    run(llama, tmp_path / "resumed", variant, resume_from=checkpoint)
    whole, resumed = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("out", "resumed"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize("start", ["pissa", pytest.param("olora", marks=pytest.mark.long)])
def test_what_a_checkpoint_s_base_lacked_is_taken_out_again_where_other_first_values_are_found(
    start: str, llama: Path, tmp_path: Path
) -> None:
    """As on a machine whose singular vectors are others: here those of another rank-4 part of the weights."""
    variant = {"init_lora_weights": start}
    run(llama, tmp_path / "out", variant)
    expected = load_file(tmp_path / "out" / "adapter_model.safetensors")
    finetuner = run(llama, tmp_path / "again", {"init_lora_weights": "pissa" if start == "olora" else "olora"})
    assert finetuner.peft_model is not None
    read_weights(finetuner.peft_model, tmp_path / "out" / "checkpoint-6")
    files = adapter_files(finetuner.peft_model, gather_adapter(finetuner.peft_model))
    assert all(torch.equal(files.tensors[name], expected[name]) for name in expected)
    fresh = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path / "out"))
    close(logits_of(finetuner.peft_model), logits_of(loaded), 2e-5)


def test_a_second_adapter_begins_from_the_base_that_the_first_had(llama: Path, tmp_path: Path) -> None:
    finetuner = run(llama, tmp_path / "one", {"init_lora_weights": "pissa", "modules_to_save": ["norm"]})
    finetuner.setup_lora(r=4)
    assert finetuner.peft_model is not None
    fresh = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    assert torch.equal(logits_of(finetuner.peft_model), logits_of(fresh))


@pytest.mark.parametrize(
    "name", ["modules", *(pytest.param(each, marks=pytest.mark.long) for each in ("dora", "pissa"))]
)
def test_in_a_bf16_base_a_variant_trains_in_float32(name: str, llama: Path, tmp_path: Path) -> None:
    finetuner = run(llama, tmp_path / "out", VARIANTS[name], precision="bf16")
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    assert any(not torch.equal(tensor, tensor.bfloat16().float()) for tensor in saved.values())
    assert finetuner.peft_model is not None
    assert loss_of(finetuner.peft_model) < loss_of(AutoModelForCausalLM.from_pretrained(llama)) - 0.02


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ({"init_lora_weights": "eva"}, "init_lora_weights eva computes the first values from"),
        ({"init_lora_weights": False}, "init_lora_weights false begins with noise"),
        ({"layers_to_transform": [1, 2]}, "no block 2; it has 2, from 0"),
        ({"modules_to_save": ["nrm"]}, "no module nrm; its modules are .*lm_head"),
        ({"modules_to_save": ["lm_head"]}, "lm_head is one weight with lm_head and model.embed_tokens in this model"),
    ],
)
def test_what_cannot_be_had_on_a_model_is_refused_by_name(
    variant: dict[str, Any], words: str, tiny_models: TinyModels, tmp_path: Path
) -> None:
    finetuner = LLMFineTuner(str(tiny_models.llama), str(tmp_path))
    finetuner.load_model()
    with pytest.raises(PreflightError, match=words):
        finetuner.setup_lora(r=4, variant=LoraSettings.model_validate(variant))


def test_olora_on_transposed_weights_and_ranks_that_are_not_there_are_refused(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    finetuner = LLMFineTuner(str(tiny_models.gpt2), str(tmp_path))
    finetuner.load_model()
    with pytest.raises(PreflightError, match="olora reads weights by rows, and GPT2LMHeadModel's lie in columns"):
        finetuner.setup_lora(r=4, variant=LoraSettings(init_lora_weights="olora"))
    with pytest.raises(PreflightError, match=r"pissa finds at most 96 ranks in this model, and lora\.r is 128"):
        finetuner.setup_lora(r=128, variant=LoraSettings(init_lora_weights="pissa"))


COMBINED: dict[str, dict[str, Any]] = {
    "dora": {"use_dora": True, "use_rslora": True, "loraplus_lr_ratio": 4.0, "modules_to_save": ["norm", "lm_head"]},
    "pissa": {"init_lora_weights": "pissa", "loraplus_lr_ratio": 4.0},
    "modules": {"loraplus_lr_ratio": 4.0, "modules_to_save": ["norm", "lm_head"], "layers_to_transform": [1]},
}
RUNS: Sequence[tuple[str, Strategy]] = [
    ("dora", "ddp"),
    ("dora", "zero2"),
    ("dora", "fsdp"),
    ("pissa", "ddp"),
    ("pissa", "zero2"),
    ("pissa", "fsdp"),
    ("modules", "ddp"),
    ("modules", "zero2"),
    ("modules", "fsdp"),
]


@pytest.mark.parametrize(
    ("name", "strategy"),
    [pytest.param(*each, marks=() if each in RUNS[2:3] else pytest.mark.long) for each in RUNS],
)
def test_every_strategy_trains_a_variant_as_one_rank_does_and_resumes_it_exactly(
    name: str, strategy: Strategy, llama: Path, rows: Path, tmp_path: Path
) -> None:
    lora = COMBINED[name] | {"target_modules": ["q_proj", "v_proj", "o_proj"]}
    alone = trained(make_order(llama, rows, tmp_path / "alone", "single", 1, lora=lora))
    shared = trained(make_order(llama, rows, tmp_path / "shared", strategy, 2, lora=lora))
    assert losses(shared) == pytest.approx(losses(alone), abs=1e-5)
    assert losses(alone)[-1] < losses(alone)[0]
    assert difference(adapter(shared), adapter(alone)) < 3e-5
    shutil.copytree(tmp_path / "shared" / "checkpoint-3", tmp_path / "checkpoint-3")
    order = make_order(llama, rows, tmp_path / "on", strategy, 2, lora=lora, resume_from=tmp_path / "checkpoint-3")
    resumed = trained(order)
    assert difference(adapter(resumed), adapter(shared)) == 0.0, logs(resumed)
    config = json.loads((tmp_path / "shared" / "adapter_config.json").read_text())
    assert config["r"] == (8 if name == "pissa" else 4)
