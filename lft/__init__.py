"""lft fine-tunes language models with LoRA on whatever is there: one CPU, one GPU, four GPUs, a cluster.

The names below are loaded when they are used, so that `import lft` costs milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lft.core.errors import LftError
    from lft.core.settings import RunSettings
    from lft.train.finetuner import LLMFineTuner

__version__ = "0.1.0"
__all__ = ["LLMFineTuner", "LftError", "RunSettings", "__version__"]

_HOMES = {
    "LLMFineTuner": "lft.train.finetuner",
    "LftError": "lft.core.errors",
    "RunSettings": "lft.core.settings",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
