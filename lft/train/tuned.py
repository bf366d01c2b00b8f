"""A tuned model made ready to answer: base and adapter, or a whole model, with the way its prompts are written."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lft.core.adapter_folder import TunedFolder
from lft.core.lora_start import Quantization
from lft.data.example import Style
from lft.data.writing import usual_style
from lft.train.adapter import load_adapter, saved_style
from lft.train.memory import translating_out_of_memory
from lft.train.model import base_precision, device_map, find_device, load_base_model, load_tokenizer, resolve_model


@dataclass(frozen=True, slots=True)
class Tuned:
    """`model` is a PeftModel, or a whole model where the folder holds one."""

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    style: Style

    @property
    def has_adapter(self) -> bool:
        """Whether there is a base to compare with."""
        return isinstance(self.model, PeftModel)

    def base(self) -> AbstractContextManager[Any]:
        """Within it the model answers without its adapter."""
        return self.model.disable_adapter() if isinstance(self.model, PeftModel) else nullcontext()


def load_tuned(folder: TunedFolder, announce: Callable[[str], None], *, trust_remote_code: bool = False) -> Tuned:
    """What `folder` names, loaded as it was trained, on this machine's devices. Raises PreflightError, OutOfMemoryError."""
    resolved = resolve_model(folder.base, announce)
    options: dict[str, Any] = {"revision": folder.revision, "trust_remote_code": trust_remote_code}
    has_own_tokenizer = folder.tokenizer != folder.base
    tokenizer = load_tokenizer(
        folder.tokenizer if has_own_tokenizer else resolved,
        revision=None if has_own_tokenizer else folder.revision,
        trust_remote_code=trust_remote_code,
    )
    device = find_device()
    precision, _ = base_precision(resolved, None, device, **options)
    quantization: Quantization = folder.notes.get("quantization", "none")
    kept = "" if quantization == "none" else f", weights in {quantization}"
    announce(f"loading    {folder.base_name}, {precision} on {device}{kept}")
    with translating_out_of_memory():
        base = load_base_model(resolved, precision, device_map("device-map", device, 0), quantization, **options)
        model: PreTrainedModel | PeftModel = load_adapter(base, folder.folder) if folder.has_adapter else base
    model.eval()
    return Tuned(model, tokenizer, saved_style(folder.folder) or usual_style(tokenizer))
