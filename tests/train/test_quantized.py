"""Quantized bases, on a CPU: trained for real with bitsandbytes, evaluated in between, resumed, loaded by others.

scripts/test runs them apart, with a bitsandbytes that no other test meets.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from lft.core.errors import PreflightError
from lft.core.events import EventTail
from lft.core.lora_start import Quantization
from lft.core.run_dir import RunDir
from lft.train.model import load_base_model
from tests.conftest import demo_lines, run_lft
from tests.train.test_variants import close, llama, logits_of, loss_of, run

__all__ = ["llama"]
CONFIGS: dict[str, Any] = {
    "4bit": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    "8bit": BitsAndBytesConfig(load_in_8bit=True),
}


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_an_adapter_of_a_quantized_base_learns_goes_on_exactly_and_opens_with_plain_peft(
    kind: Quantization, llama: Path, tmp_path: Path
) -> None:
    finetuner = run(llama, tmp_path / "out", {}, quantization=kind)
    model = finetuner.peft_model
    assert model is not None
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    assert json.loads((tmp_path / "out" / "lft.json").read_text())["quantization"] == kind
    fresh = AutoModelForCausalLM.from_pretrained(
        llama, dtype=torch.float32, device_map={"": "cpu"}, quantization_config=CONFIGS[kind]
    )
    before = loss_of(fresh.eval()).item()
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path / "out"))
    # by itself bitsandbytes evaluates 4 bits in bf16 on CPUs that have it, as close as that is
    close(logits_of(loaded), logits_of(model), 5e-2 if kind == "4bit" else 2e-4)
    ours = PeftModel.from_pretrained(load_base_model(str(llama), "fp32", None, kind), str(tmp_path / "out"))
    close(logits_of(ours), logits_of(model), 1e-5)
    assert loss_of(model.eval()).item() < before - 0.02
    shutil.copytree(tmp_path / "out" / "checkpoint-2", tmp_path / "checkpoint-2")
    run(llama, tmp_path / "resumed", {}, quantization=kind, resume_from=tmp_path / "checkpoint-2")
    whole, resumed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("out", "resumed"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


def test_gradients_after_an_evaluation_are_those_before_it(llama: Path) -> None:
    """Bitsandbytes packs weights in evaluation for a product without a backward pass, on CPUs with bf16 instructions."""
    gradients = []
    base = load_base_model(str(llama), "fp32", None, "4bit")
    embeddings = base.get_input_embeddings()
    for evaluates in (False, True):
        if evaluates:
            logits_of(base)
        base.train()
        embedded = embeddings(torch.tensor([[5, 6, 7, 8]])).detach().requires_grad_()
        base(inputs_embeds=embedded).logits.square().mean().backward()
        assert embedded.grad is not None
        gradients.append(embedded.grad)
    assert float(gradients[0].abs().max()) > 0
    assert torch.equal(*gradients)


def test_first_values_that_need_the_weights_themselves_are_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="pissa needs the weights themselves, and they are quantized"):
        run(llama, tmp_path, {"init_lora_weights": "pissa"}, quantization="4bit")


def test_a_quantized_base_trains_dora(llama: Path, tmp_path: Path) -> None:
    model = run(llama, tmp_path, {"use_dora": True}, quantization="4bit").peft_model
    assert model is not None
    ours = loss_of(model.eval()).item()
    with model.disable_adapter():
        assert ours < loss_of(model).item() - 0.02


def test_two_ranks_train_a_quantized_base_as_one_does_and_benchmark_it(llama: Path, tmp_path: Path) -> None:
    """Through `lft launch`: every rank quantizes the base for itself."""
    (tmp_path / "rows.jsonl").write_text("\n".join(demo_lines(24)))
    options = {
        "model.quantization": "4bit",
        "launch.precision": "fp32",
        "lora.lora_dropout": 0,
        "data.held_out": 4,
        "training.batch_size": 2,
        "training.global_batch_size": 4,
        "training.max_steps": 2,
        "training.log_every": 1,
        "benchmark.max_new_tokens": 4,
    }
    sets = [word for key, value in options.items() for word in ("--set", f"{key}={value}")]
    losses = []
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        tail = EventTail(RunDir(out).events)
        words = ("--model", llama, "--dataset", "rows.jsonl", "--output-dir", out, "--cpu-procs", ranks)
        done = run_lft("launch", *words, *sets, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "4bit weights" in done.stdout
        assert "held-out loss" in done.stdout
        losses.append([event.data["loss"] for event in tail.new_events() if event.kind == "log"])
    assert len(losses[0]) == 2
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
