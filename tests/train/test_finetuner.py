"""LLMFineTuner beyond its documented examples: order of calls, repetition, other processes, running out, stopping."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune_cli import LLMFineTuner, get_user_input
from lft.core.errors import CallOrderError, LftError
from lft.core.settings import TrainingSettings
from lft.train.checkpoint import read_state
from tests.conftest import TinyModels, demo_lines

PAIRS = [(json.loads(line)["prompt"], json.loads(line)["completion"]) for line in demo_lines(24)]


def ready(model: Path, output_dir: Path, data: Path) -> tuple[LLMFineTuner, Dataset]:
    """A fine-tuner with model and adapter, and its tokens."""
    finetuner = LLMFineTuner(str(model), str(output_dir))
    finetuner.load_model()
    tokens, _ = finetuner.prepare_dataset(finetuner.load_dataset_from_source(str(data)))
    finetuner.setup_lora(lora_dropout=0.0)
    return finetuner, tokens


def test_calls_in_the_wrong_order_say_which_call_is_missing(tiny_models: TinyModels, tmp_path: Path) -> None:
    finetuner, rows = LLMFineTuner(str(tiny_models.gpt2), str(tmp_path)), Dataset.from_list([{"text": "a"}])
    for call in (
        lambda: finetuner.prepare_dataset(rows),
        finetuner.get_target_modules,
        finetuner.setup_lora,
        lambda: finetuner.benchmark(["a"]),
        lambda: finetuner.train(rows),
    ):
        with pytest.raises(CallOrderError, match=r"load_model\(\)"):
            call()
    finetuner.load_model()
    with pytest.raises(CallOrderError, match=r"setup_lora\(\)"):
        finetuner.train(rows)
    finetuner.setup_lora()
    with pytest.raises(CallOrderError, match=r"prepare_dataset\(\)"):
        finetuner.train(rows)
    with pytest.raises(CallOrderError, match="needs prompts"):
        finetuner.benchmark([])


def test_a_second_setup_lora_replaces_the_first(
    tiny_models: TinyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetuner = LLMFineTuner(str(tiny_models.llama), str(tmp_path))
    finetuner.load_model()
    printed = []
    for r in (8, 4, 8):
        capsys.readouterr()
        finetuner.setup_lora(r=r)
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[2]
    assert printed[0].startswith("trainable params: 10,752 || all params: ")
    assert printed[1].startswith("trainable params: 5,376 || all params: ")
    assert finetuner.peft_model is not None
    assert len(finetuner.peft_model.peft_config) == 1


def test_the_base_is_measured_without_the_adapter_and_the_tuned_model_anywhere(
    tiny_models: TinyModels, tmp_path: Path, data_file: Path
) -> None:
    finetuner, tokens = ready(tiny_models.llama, tmp_path / "out", data_file)
    finetuner.setup_lora(r=32, lora_dropout=0.0, target_modules="all-linear")
    before = finetuner.benchmark(PAIRS, max_new_tokens=12)
    assert list(before) == ["rouge1", "rouge2", "rougeL"]
    assert before["rougeL"] > 0
    finetuner.train(tokens.select(range(24)), num_epochs=80, learning_rate=1e-2)
    tuned = finetuner.benchmark(PAIRS, use_finetuned=True, max_new_tokens=12)
    assert finetuner.benchmark(PAIRS, max_new_tokens=12) == before
    assert tuned["rougeL"] > before["rougeL"] + 0.1
    fresh = LLMFineTuner(str(tiny_models.llama), str(tmp_path / "out"))
    fresh.load_model()
    assert fresh.benchmark(PAIRS, use_finetuned=True, max_new_tokens=12) == tuned
    assert fresh.benchmark(PAIRS, max_new_tokens=12) == before


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_plain_transformers_and_peft_compute_the_logits_of_training(
    tiny_models: TinyModels, tmp_path: Path, data_file: Path, name: str
) -> None:
    folder = getattr(tiny_models, name)
    finetuner, tokens = ready(folder, tmp_path / "out", data_file)
    finetuner.train(tokens, num_epochs=1, learning_rate=5e-3)
    ids = torch.tensor([tokens[0]["input_ids"]])
    base = AutoModelForCausalLM.from_pretrained(folder)
    without = base(input_ids=ids).logits
    plain = PeftModel.from_pretrained(base, tmp_path / "out")
    assert finetuner.peft_model is not None
    finetuner.peft_model.eval()
    with torch.inference_mode():
        ours, theirs = finetuner.peft_model(input_ids=ids).logits, plain(input_ids=ids).logits
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, without, atol=1e-2)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("a dog").input_ids
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names >= {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "checkpoint-4"}


def test_rows_a_caller_tokenized_and_padded_train_as_the_same_rows_unpadded(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_models.gpt2)
    tokenizer.pad_token = tokenizer.eos_token
    texts = [f"{prompt}\n{answer}<|endoftext|>" for prompt, answer in PAIRS]
    padded = Dataset.from_dict(dict(tokenizer(texts, padding="max_length", max_length=80)))
    bare = Dataset.from_dict({"input_ids": tokenizer(texts).input_ids})
    weights = []
    for number, rows in enumerate((padded, bare)):
        finetuner = LLMFineTuner(str(tiny_models.gpt2), str(tmp_path / str(number)))
        finetuner.load_model()
        finetuner.setup_lora(lora_dropout=0.0)
        finetuner.train(rows, num_epochs=1)
        weights.append((tmp_path / str(number) / "adapter_model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_bf16_training_learns_and_keeps_adapters_in_float32(
    tiny_models: TinyModels, tmp_path: Path, data_file: Path
) -> None:
    finetuner = LLMFineTuner(str(tiny_models.llama), str(tmp_path / "out"))
    finetuner.load_model(precision="bf16")
    tokens, _ = finetuner.prepare_dataset(finetuner.load_dataset_from_source(str(data_file)))
    finetuner.setup_lora()
    finetuner.train(tokens, num_epochs=4, learning_rate=2e-2, settings=TrainingSettings(log_every=1))
    losses = [entry["loss"] for entry in read_state(tmp_path / "out" / "checkpoint-16").log_history]
    assert sum(losses[-4:]) < sum(losses[:4]) - 0.2
    assert finetuner.peft_model is not None
    adapters = [parameter for parameter in finetuner.peft_model.parameters() if parameter.requires_grad]
    assert {parameter.dtype for parameter in adapters} == {torch.float32}


def test_a_prompt_without_reference_is_compared_with_itself_and_that_is_said(
    tiny_models: TinyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetuner = LLMFineTuner(str(tiny_models.gpt2), str(tmp_path))
    finetuner.load_model()
    scores = finetuner.benchmark(["a dog", "a cat"], max_new_tokens=8)
    assert "2 prompts have no reference" in capsys.readouterr().out
    assert scores == finetuner.benchmark([("a dog", "a dog"), ("a cat", "a cat")], max_new_tokens=8)
    with pytest.raises(LftError, match="holds no adapter"):
        finetuner.benchmark(["a"], use_finetuned=True)


def test_rows_and_prompts_longer_than_the_model_s_positions_are_cut_to_them(
    tiny_models: TinyModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetuner = LLMFineTuner(str(tiny_models.gpt2), str(tmp_path))
    finetuner.load_model()
    text = "dog " * 400
    tokens, _ = finetuner.prepare_dataset(Dataset.from_list([{"text": text}]))
    assert "cut at 256 tokens, the model's positions, not data.max_length 512" in capsys.readouterr().out
    assert len(tokens[0]["input_ids"]) == 256
    finetuner.setup_lora()
    finetuner.train(tokens, num_epochs=1)
    assert finetuner.benchmark([(text, "dog")], max_new_tokens=500).keys() == {"rouge1", "rouge2", "rougeL"}


@pytest.mark.parametrize("warmup_steps", [20, 0.82], ids=["steps", "share of 24 steps"])
def test_training_says_its_loss_every_ten_steps_and_a_constant_rate_still_warms_up(
    warmup_steps: float, tiny_models: TinyModels, tmp_path: Path, data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finetuner, tokens = ready(tiny_models.gpt2, tmp_path, data_file)
    settings = TrainingSettings(lr_scheduler="constant", warmup_steps=warmup_steps)
    finetuner.train(tokens, num_epochs=6, learning_rate=1e-3, settings=settings)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("train")]
    assert len(told) == 3  # the parameters, and steps 10 and 20
    assert "step 10/24  loss " in told[1]
    assert told[1].endswith("learning rate 0.00045")
    assert told[2].endswith("learning rate 0.00095")


def test_a_failed_setup_leaves_no_broken_adapter_and_a_loaded_one_can_be_trained_on(
    tiny_models: TinyModels, tmp_path: Path, data_file: Path
) -> None:
    finetuner, tokens = ready(tiny_models.gpt2, tmp_path / "out", data_file)
    finetuner.train(tokens, num_epochs=1)
    with pytest.raises(LftError, match="no layer nope"):
        finetuner.setup_lora(target_modules=["nope"])
    with pytest.raises(CallOrderError, match=r"setup_lora\(\)"):
        finetuner.train(tokens)
    again = LLMFineTuner(str(tiny_models.gpt2), str(tmp_path / "out"))
    again.load_model()
    again.benchmark(PAIRS[:2], use_finetuned=True, max_new_tokens=4)
    before = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    again.train(tokens, num_epochs=1, learning_rate=1e-3)
    assert (tmp_path / "out" / "adapter_model.safetensors").read_bytes() != before


def test_an_upload_without_an_adapter_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(LftError, match="holds no adapter to upload"):
        LLMFineTuner("gpt2", str(tmp_path / "none")).upload_to_huggingface("me/x", token="hf_secret")
    assert not (tmp_path / "none").exists()


def test_a_cache_that_cannot_be_written_is_one_clear_error(
    tiny_models: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("LFT_CACHE", str(tmp_path / "file" / "cache"))
    finetuner = LLMFineTuner(str(tiny_models.gpt2), str(tmp_path))
    finetuner.load_model()
    with pytest.raises(LftError, match=r"cache folder .* cannot be written.*\n.*LFT_CACHE"):
        finetuner.prepare_dataset(Dataset.from_list([{"text": "a"}]))


def test_making_a_fine_tuner_touches_no_signal_handler(tiny_models: TinyModels, tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    LLMFineTuner(str(tiny_models.gpt2), str(tmp_path)).load_model()
    assert {number: signal.getsignal(number) for number in before} == before


def python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """A program of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


TRAIN = """
    import signal, sys
    signal.signal(signal.SIGINT, signal.default_int_handler)  # started in a shell's background, Python would ignore it
    from finetune_cli import LLMFineTuner
    from lft.core.settings import TrainingSettings
    finetuner = LLMFineTuner(sys.argv[1], sys.argv[2])
    finetuner.load_model()
    tokens, _ = finetuner.prepare_dataset(finetuner.load_dataset_from_source(sys.argv[3]), max_length=256)
    finetuner.setup_lora()
"""


def test_running_out_of_memory_says_so_with_the_documented_advice_and_keeps_the_last_checkpoint(
    tiny_models: TinyModels, tmp_path: Path, data_file: Path
) -> None:
    process = python(
        TRAIN
        + """
    finetuner.train(tokens, num_epochs=1)
    import resource, datasets
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20, resource.RLIM_INFINITY))
    big = datasets.Dataset.from_list([{"input_ids": [5] * 250}] * 8000)
    try:
        finetuner.train(big, num_epochs=1, batch_size=8000)
    except RuntimeError as error:
        print("RAISED", str(error).replace(chr(10), " "), type(error).__name__)
    """,
        tiny_models.gpt2,
        tmp_path / "out",
        data_file,
    )
    output = process.communicate(timeout=200)[0]
    raised = [line for line in output.splitlines() if line.startswith("RAISED")]
    assert len(raised) == 1, output
    assert "out of memory" in raised[0]
    assert "Reduce batch size or sequence length" in raised[0]
    assert (tmp_path / "out" / "checkpoint-4" / "adapter_model.safetensors").exists()
    assert (tmp_path / "out" / "adapter_model.safetensors").exists()


def test_ctrl_c_raises_keyboard_interrupt_and_keeps_the_last_checkpoint(
    tiny_models: TinyModels, tmp_path: Path, data_file: Path
) -> None:
    process = python(
        TRAIN
        + """
    try:
        finetuner.train(tokens, num_epochs=100000, settings=TrainingSettings(save_every=4, keep_last=10**6))
    except KeyboardInterrupt:
        print("INTERRUPTED")
    """,
        tiny_models.gpt2,
        tmp_path / "out",
        data_file,
    )
    checkpoint = tmp_path / "out" / "checkpoint-4" / "manifest.json"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert output.rstrip().endswith("INTERRUPTED")
    assert checkpoint.exists()


@pytest.mark.parametrize(
    ("typed", "default", "prompt", "answer"),
    [
        ("", "gpt2", "Enter model name [gpt2]: ", "gpt2"),
        (" opt ", "gpt2", "Enter model name [gpt2]: ", "opt"),
        ("x", None, "Enter model name: ", "x"),
    ],
)
def test_a_question_shows_its_default_and_takes_it_for_an_empty_answer(
    monkeypatch: pytest.MonkeyPatch, typed: str, default: str | None, prompt: str, answer: str
) -> None:
    asked: list[str] = []

    def answered(text: str) -> str:
        asked.append(text)
        return typed

    monkeypatch.setattr("builtins.input", answered)
    assert get_user_input("Enter model name", default) == answer
    assert asked == [prompt]
