"""What the benchmark of the library is asked: prompts, each with the text that its answer is compared with."""

from collections.abc import Callable, Sequence

from lft.core.errors import CallOrderError

Prompt = str | tuple[str, str]
"""A prompt, or a prompt and the reference its answer is compared with."""


def with_references(prompts: Sequence[Prompt], announce: Callable[[str], None]) -> list[tuple[str, str]]:
    """Prompts and references; a prompt without one is its own, which is announced. Raises CallOrderError for none."""
    if isinstance(prompts, str):
        prompts = [prompts]
    if not prompts:
        raise CallOrderError("benchmark() needs prompts", next_step="pass a list of texts")
    without = sum(isinstance(prompt, str) for prompt in prompts)
    if without:
        announce(f"benchmark  {without} prompts have no reference; their answers are compared with the prompt itself")
    return [(prompt, prompt) if isinstance(prompt, str) else (prompt[0], prompt[1]) for prompt in prompts]
