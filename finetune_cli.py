"""The import of the documented API: `from finetune_cli import LLMFineTuner, get_user_input`."""

from lft.cli.prompt import get_user_input
from lft.train.finetuner import LLMFineTuner

__all__ = ["LLMFineTuner", "get_user_input"]
