"""How the loss deals with logits: what training does, and what memory is predicted from."""

from collections.abc import Mapping
from typing import Any

CHUNK_LOGITS = 2**24
"""Logits held at a time: 64 MiB of float32, 341 tokens of a vocabulary of 49,152."""
CHANGES_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
"""Settings by which a model's forward changes what its output projection returns."""


def what_changes_logits(config: Mapping[str, Any]) -> str | None:
    """The setting of a model's configuration for which its loss needs its own logits; None where they can come in chunks."""
    return next((name for name in CHANGES_LOGITS if config.get(name) not in (None, 1)), None)
