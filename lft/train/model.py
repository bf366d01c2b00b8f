"""Loading a base model and its tokenizer, in the right number type and on the right device."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lft.core.errors import PreflightError
from lft.core.lora_start import Quantization
from lft.core.paths import looks_local, missing_path
from lft.core.precision import Device, choose_precision
from lft.core.settings import ModelSettings, Precision, Strategy
from lft.data.cache import usable_cache
from lft.train.gguf import converted_folder

Place = str | dict[str, int | str] | None
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def find_device() -> Device:
    """Cuda where torch sees a GPU, else cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve_model(name: str, announce: Callable[[str], None]) -> str:
    """What from_pretrained takes: a Hub id, a folder, or the folder a .gguf file was turned into.

    Raises PreflightError for a local path that does not exist.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() == ".gguf" and path.is_file():
        return str(converted_folder(path.absolute(), usable_cache(), announce))
    if looks_local(name) and not path.exists():
        raise PreflightError(f"model {missing_path(name)}")
    return str(path) if path.exists() else name


def load_tokenizer(resolved: str, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer, padding on the left, with a pad token that is one of its own tokens.

    A missing pad token becomes the end token (or unk, or token 0): nothing is added to the vocabulary, and no text is
    tokenized differently. Raises PreflightError where there is none to be had.
    """
    tokenizer: PreTrainedTokenizerBase = _had(AutoTokenizer.from_pretrained, "tokenizer", resolved, **options)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)
    tokenizer.padding_side = "left"  # generation needs it; training batches are padded by their collator
    return tokenizer


def longest_sequence(resolved: str, **options: Any) -> int | None:
    """The most tokens the model has positions for; None where it has no such bound. Raises PreflightError."""
    positions = getattr(_had(AutoConfig.from_pretrained, "model", resolved, **options), "max_position_embeddings", None)
    return positions if isinstance(positions, int) and positions > 0 else None


def tokenizer_loader(
    model: ModelSettings, announce: Callable[[str], None]
) -> Callable[[], tuple[PreTrainedTokenizerBase, int | None]]:
    """How to get a model's tokenizer and number of positions; nothing is loaded before it is called, or twice."""

    @cache
    def load() -> tuple[PreTrainedTokenizerBase, int | None]:
        options = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
        resolved = resolve_model(model.name, announce)
        return load_tokenizer(resolved, **options), longest_sequence(resolved, **options)

    return load


def base_precision(resolved: str, precision: Precision | None, device: Device, **options: Any) -> tuple[Precision, str]:
    """The number type of the base model and the reason for it.

    Raises PreflightError where the model cannot be had or the precision cannot work.
    """
    config = _had(AutoConfig.from_pretrained, "model", resolved, **options)
    return choose_precision(
        precision,
        device,
        checkpoint_is_bf16=getattr(config, "dtype", None) == torch.bfloat16,
        device_computes_bf16=device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False),
    )


def load_base_model(
    resolved: str, precision: Precision, place: Place, quantization: Quantization = "none", **options: Any
) -> PreTrainedModel:
    """The base model with frozen weights at `place`, quantized while they are loaded. Raises PreflightError.

    A quantized model needs none of peft's prepare_model_for_kbit_training: nothing but adapters is trained here, which
    are float32 anyway, and gradient checkpointing is not reentrant; float32 embeddings would only cost memory.
    """
    if quantization != "none":
        options["quantization_config"] = _quantized(quantization, precision)
        place = place or {"": "cpu"}
    model: PreTrainedModel = _had(
        AutoModelForCausalLM.from_pretrained,
        "model",
        resolved,
        dtype=DTYPES[precision],
        device_map=place,
        **options,
    )
    model.requires_grad_(False)
    for module in model.modules() if quantization == "4bit" else ():
        # on a CPU with bf16 instructions a forward pass in evaluation would pack the weights for a product that knows no
        # backward pass, and training after it would lose gradients without a word (bitsandbytes 0.50)
        if hasattr(module, "support_avx512bf16_for_cpu"):
            vars(module)["support_avx512bf16_for_cpu"] = False
    return model


def _quantized(quantization: Quantization, precision: Precision) -> BitsAndBytesConfig:
    """QLoRA's 4 bits: NF4, with its scales quantized too (Dettmers et al. 2023, arXiv:2305.14314). Or LLM.int8()."""
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[precision],
    )


def device_map(strategy: Strategy, device: Device, local_rank: int) -> Place:
    """Where the layers go: this rank's GPU; all GPUs of one process ("auto"); or None, which is the CPU.

    ZeRO-3 and FSDP2 put each rank's part on its GPU themselves: the whole model may not fit one.
    """
    if device == "cpu" or strategy in ("zero3", "fsdp"):
        return None
    return "auto" if strategy == "device-map" else {"": local_rank}


def _had(load: Callable[..., Any], what: str, name: str, **options: Any) -> Any:
    """Call a from_pretrained; what it raises for a name it cannot find becomes one clear error."""
    try:
        return load(name, **options)
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = str(error).strip().split("\n")[0]
        raise PreflightError(
            f'the {what} of "{name}" cannot be loaded: {reason}',
            next_step="check model.name: a Hub id, a folder with config.json, or a .gguf file (private models: hf auth login)",
        ) from None
