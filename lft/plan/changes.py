"""What differs between the plan a checkpoint was trained by and the plan of now, and what each difference means. Pure."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lft.plan.batch import Batch
from lft.plan.launch_plan import LaunchPlan

Effect = Literal["none", "rounding", "inexact", "unusable"]
"""On the adapter a run ends with: the same bits; the same sums in another order; another adapter; the weights do not fit."""

_EFFECTS: tuple[tuple[str, Effect], ...] = (
    ("model.trust_remote_code", "none"),
    ("model.", "unusable"),
    ("lora.lora_alpha", "inexact"),
    ("lora.lora_dropout", "inexact"),
    ("lora.use_rslora", "inexact"),
    ("lora.loraplus_lr_ratio", "inexact"),
    ("lora.", "unusable"),
    ("training.optimizer", "unusable"),
    ("training.save_every", "none"),
    ("training.keep_last", "none"),
    ("training.keep_best", "none"),
    ("training.evaluate_every", "none"),
    ("training.log_every", "none"),
    ("training.trackers", "none"),
    ("training.batch_size", "rounding"),
    ("training.gradient_checkpointing", "rounding"),
    ("training.liger", "rounding"),
    ("launch.", "none"),
    ("benchmark.", "none"),
    ("upload.", "none"),
    ("slurm.", "none"),
)
"""Setting or section -> effect, the first that fits; any other setting changes what is trained. Of `launch`, what follows
for ranks, strategy and precision is compared in the plans."""
_PATHS = ("model.name", "data.source")


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: a setting, or what the machine made of one."""

    key: str
    before: str
    now: str
    effect: Effect

    def describe(self) -> str:
        """`training.save_every  5, was epoch`."""
        means = {"rounding": "; the same up to rounding", "inexact": "; no longer exact"}.get(self.effect, "")
        return f"{self.key}  {self.now}, was {self.before}{means}"

    def refusal(self, checkpoint: str) -> str:
        """Why it is not gone on with, and the way back."""
        why = "which it cannot be used with" if self.effect == "unusable" else "and would not end as it would have"
        back = shlex.join(["--set", f"{self.key}={self.before}"])
        return f"{self.key}  is {self.now}, and {checkpoint} was trained with {self.before}, {why}; back: {back}"


def changes(before: LaunchPlan, now: LaunchPlan) -> list[Change]:
    """Every difference between two plans of a run, its settings first."""
    return [*_settings(before, now), *_layout(before, now)]


def arithmetic(before: Batch, now: Batch) -> str:
    """`64 = 2 rows x 16 accumulation x 2 ranks, was 2 x 8 x 4`; nothing where it is the same."""
    if before == now:
        return ""
    was = f"{before.micro_batch} x {before.accumulation} x {before.world_size}"
    return f"{now.describe()}, was {was}" + (
        "" if before.global_batch == now.global_batch else f" = {before.global_batch}"
    )


def _settings(before: LaunchPlan, now: LaunchPlan) -> Iterator[Change]:
    earlier = before.settings.by_name()
    for key, value in now.settings.by_name().items():
        was = earlier.get(key)
        if value != was:
            yield Change(key, _typed(was), _typed(value), _effect(key, was, value))


def _layout(before: LaunchPlan, now: LaunchPlan) -> Iterator[Change]:
    """What is decided anew for this machine: where and how the same steps are computed."""
    facts = (
        ("ranks", before.topology.ranks, now.topology.ranks),
        ("device", before.topology.device, now.topology.device),
        ("strategy", before.strategy, now.strategy),
        ("gradient checkpointing", _switch(before.gradient_checkpointing), _switch(now.gradient_checkpointing)),
    )
    yield from (Change(name, str(was), str(value), "rounding") for name, was, value in facts if was != value)
    if before.precision != now.precision and None not in (before.precision, now.precision):
        yield Change("launch.precision", str(before.precision), str(now.precision), "inexact")


def _effect(key: str, before: object, now: object) -> Effect:
    moved = key in _PATHS and isinstance(before, str) and isinstance(now, str) and Path(before).is_absolute()
    if moved and Path(str(before)).name == Path(str(now)).name:
        return "inexact"  # the same files elsewhere, as far as anyone can tell without having both
    return next((effect for start, effect in _EFFECTS if key.startswith(start)), "inexact")


def _switch(is_on: bool) -> str:
    return "on" if is_on else "off"


def _typed(value: object) -> str:
    """A value as it is typed after --set."""
    return value if isinstance(value, str) else json.dumps(value)
