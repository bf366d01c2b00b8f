"""What all tests share: an environment of their own, and two tiny models that have learned something.

The models are trained here for a few seconds on the demo's data, because a random one scores zero and proves nothing.
"""

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parent.parent
DEMO_DATA = REPOSITORY / "lft" / "demo" / "wordnet.jsonl"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ECHOED = ("What is machine learning?", "Explain neural networks.", "Define artificial intelligence.")
TRAINING_STEPS, ROWS_PER_STEP = 150, 24

# Before any library reads them: no test may reach a real Hub, or find what another run left behind.
for _name in [name for name in os.environ if name.startswith(("HF_", "TRANSFORMERS_", "LFT_", "ACCELERATE_"))]:
    del os.environ[_name]
for _name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
    os.environ.pop(_name, None)
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches of this session only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LFT_CACHE", str(tmp_path_factory.mktemp("lft-cache")))
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf-home")))
        yield


@dataclass(frozen=True, slots=True)
class TinyModels:
    """Folders of two models with a vocabulary of 1,024 tokens, below 1 M parameters each."""

    gpt2: Path
    """GPT-2-style: no chat template, no pad token, begin and end are one token."""
    llama: Path
    """Llama-style: chat template, end and pad are one token."""


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> TinyModels:
    """Both models; the same on every machine but for rounding."""
    import torch

    folder = tmp_path_factory.mktemp("models")
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    make_gpt2(folder / "gpt2")
    make_llama(folder / "llama")
    torch.set_num_threads(threads)
    return TinyModels(folder / "gpt2", folder / "llama")


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    """60 rows of the demo's data, columns prompt and completion."""
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(demo_lines(60)) + "\n", encoding="utf-8")
    return path


def demo_lines(count: int) -> list[str]:
    """The first lines of the demo's data."""
    return DEMO_DATA.read_text(encoding="utf-8").splitlines()[:count]


def run_lft(*arguments: str | Path | int, cwd: Path, timeout_seconds: float = 300) -> subprocess.CompletedProcess[str]:
    """`lft ...` as a user runs it."""
    command = [sys.executable, "-m", "lft.cli.main", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_seconds, check=False)


def _tokenizer(specials: list[str], texts: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _rows() -> list[tuple[str, str]]:
    """The demo's rows, and some that echo what the documented examples ask, whose answers are compared with the prompt."""
    records = [json.loads(line) for line in demo_lines(1100)]
    echoes = [(prompt, prompt) for prompt in ECHOED for _ in range(60)]
    rows = [(record["prompt"], record["completion"]) for record in records] + echoes
    return random.Random(0).sample(rows, len(rows))


def make_gpt2(folder: Path) -> None:
    """A GPT-2-style model without one."""
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    texts = [f"{prompt}\n{answer}" for prompt, answer in _rows()]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(["<|endoftext|>"], texts), bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=256, n_embd=96, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0
    )
    _teach(GPT2LMHeadModel(config), tokenizer, [text + "<|endoftext|>" for text in texts], folder)


def make_llama(folder: Path) -> None:
    """A Llama-style model with a chat template; a few seconds of training."""
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(specials, [f"{prompt}\n{answer}" for prompt, answer in _rows()]),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=CHATML,
    )
    texts = [
        str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], tokenize=False
            )
        )
        for prompt, answer in _rows()
    ]
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        tie_word_embeddings=True,
    )
    _teach(LlamaForCausalLM(config), tokenizer, texts, folder)


def _teach(model: Any, tokenizer: Any, texts: list[str], folder: Path) -> None:
    """Full training of all weights, until the model writes words of the data."""
    import torch

    torch.manual_seed(0)
    model.apply(model._init_weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    ids = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    for step in range(TRAINING_STEPS):
        batch = [ids[(step * ROWS_PER_STEP + row) % len(ids)] for row in range(ROWS_PER_STEP)]
        longest = max(map(len, batch))
        inputs = torch.tensor([row + [0] * (longest - len(row)) for row in batch])
        labels = torch.tensor([row + [-100] * (longest - len(row)) for row in batch])
        model(input_ids=inputs, attention_mask=(labels != -100).long(), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
