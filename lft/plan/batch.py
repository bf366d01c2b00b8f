"""The batch arithmetic, with its terms."""

from pydantic import BaseModel, ConfigDict

from lft.core.errors import SettingsError
from lft.core.settings import TrainingSettings
from lft.core.words import counted

DEFAULT_ACCUMULATION = 4
"""The documented API's gradient accumulation."""


class Batch(BaseModel):
    """global_batch = micro_batch x accumulation x world_size, in rows, or with data.packing in packs."""

    model_config = ConfigDict(frozen=True)

    micro_batch: int
    accumulation: int
    world_size: int

    @property
    def global_batch(self) -> int:
        """Rows or packs per step over all ranks."""
        return self.micro_batch * self.accumulation * self.world_size

    def describe(self, *, packing: bool = False) -> str:
        """The identity, for people."""
        unit = "pack" if packing else "row"
        ranks = counted(self.world_size, "rank")
        return f"{self.global_batch} = {counted(self.micro_batch, unit)} x {self.accumulation} accumulation x {ranks}"


def wanted_global_batch(training: TrainingSettings, asked_ranks: int) -> int:
    """Rows or packs per step, before they are made to divide: asked for, or the default."""
    return training.global_batch_size or training.batch_size * DEFAULT_ACCUMULATION * asked_ranks


def plan_batch(training: TrainingSettings, ranks: int, asked_ranks: int) -> tuple[Batch, str]:
    """The batch of a run and the reason for its size.

    A global batch that was asked for is kept exactly, or refused with those that would do (SettingsError). The default is
    made from the ranks asked for, so that a smaller machine computes the same steps; where it does not divide, it is
    rounded up.
    """
    micro = training.batch_size
    per_turn = micro * ranks
    wanted = wanted_global_batch(training, asked_ranks)
    accumulation = -(-wanted // per_turn)
    if training.global_batch_size and wanted != accumulation * per_turn:
        lower = wanted // per_turn * per_turn
        fitting = f"{lower} or {lower + per_turn}" if lower else str(per_turn)
        mistake = (
            f"training.global_batch_size({wanted}) is no multiple of batch_size({micro}) x ranks({ranks}) = {per_turn}; "
            f"use {fitting}, or another batch_size"
        )
        raise SettingsError(
            [mistake], source="the plan", next_step=f"--set training.global_batch_size={lower or per_turn}"
        )
    batch = Batch(micro_batch=micro, accumulation=accumulation, world_size=ranks)
    if training.global_batch_size:
        return batch, "asked for"
    default = f"default: batch_size x {DEFAULT_ACCUMULATION} x ranks"
    return batch, default + (" asked for" if asked_ranks != ranks else "")
