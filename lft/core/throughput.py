"""How fast a run computes: tokens a second, and the share of what its devices could. For display, status and report."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from lft.core.words import about, percent


class Speed(BaseModel):
    """Over all ranks; None where it is not known."""

    model_config = ConfigDict(frozen=True)

    tokens_per_second: float | None = None
    """Tokens of rows; padding is none."""
    trained_tokens_per_second: float | None = None
    """Those of them that have a label."""
    padding: float | None = None
    """Share of the places in batches that hold no token of a row."""
    mfu: float | None = None
    """Model FLOPs utilisation (Chowdhery et al. 2022, arXiv:2204.02311, appendix B): what the rows need, as a share of what
    the devices compute at most. Padding, and what is computed twice, do not count."""

    def describe(self) -> str:
        """`12,500 tok/s (5,100 trained, 3 % padding)  MFU 41 %`; nothing where nothing is known."""
        if self.tokens_per_second is None:
            return ""
        details = []
        if self.trained_tokens_per_second is not None:
            details.append(f"{about(self.trained_tokens_per_second)} trained")
        if self.padding is not None:
            details.append(f"{percent(self.padding, 1)} padding")
        words = f"{about(self.tokens_per_second)} tok/s" + (f" ({', '.join(details)})" if details else "")
        return words + (f"  MFU {percent(self.mfu, 1)}" if self.mfu is not None else "")


def speed(done: Mapping[str, Any], before: Mapping[str, Any], seconds: float, peak_flops: float | None) -> Speed:
    """The speed between two step events, whose data count tokens, trained_tokens, places and flops since the start.

    `peak_flops` is that of all devices, in FLOP/s.
    """
    if seconds <= 0 or "tokens" not in done or "tokens" not in before:
        return Speed()
    made = {name: done[name] - before[name] for name in ("tokens", "trained_tokens", "places")}
    if not made["places"]:
        return Speed()
    flops = done["flops"] - before["flops"] if done.get("flops") is not None else None
    return Speed(
        tokens_per_second=made["tokens"] / seconds,
        trained_tokens_per_second=made["trained_tokens"] / seconds,
        padding=1 - made["tokens"] / made["places"],
        mfu=flops / seconds / peak_flops if flops is not None and peak_flops else None,
    )
