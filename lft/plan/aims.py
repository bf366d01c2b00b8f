"""What a run is to be best at, as settings with their reasons: nothing more than anyone could write into the run file. Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from lft.core.hardware import Machine
from lft.core.model_facts import ModelFacts, UnknownModel
from lft.core.setting import default_of, is_setting
from lft.core.words import counted

AIMS = {
    "balanced": "lft's defaults, and rows as long as the data needs",
    "speed": "most rows a second: several of them in one sequence, fewer prompts in the benchmark",
    "memory": "the largest model that fits: one row at a time, activations computed twice",
    "quality": "the best adapter: on all linear layers, larger, nothing cut, the held-out loss watched",
}
STEP_LENGTH, PACK_LENGTH = 64, 1024
"""In tokens: lengths are rounded up to a multiple; what packs have at least, where the model can read it."""
ROWS_A_RANK_AND_STEP = 16
"""batch_size x accumulation of the defaults."""


class Lengths(NamedTuple):
    """Of the rows, in tokens."""

    longest: int
    most: int
    """99 of 100 rows are no longer."""


class Wanted(NamedTuple):
    """A setting and why."""

    value: Any
    reason: str


def aim_settings(
    aim: str, machine: Machine, model: ModelFacts | UnknownModel, lengths: Lengths | None, ranks: int
) -> Mapping[str, Wanted]:
    """The settings that serve an aim, by their dotted names; `ranks` share the rows of a step."""
    length = _length(aim, model, lengths)
    found = {"data.max_length": length} if length else {}
    if aim == "speed":
        return found | _speed(machine, ranks, _pack(model, length), lengths)
    if aim == "memory":
        return found | _memory(machine, ranks)
    return found | _quality() if aim == "quality" else found


def _pack(model: ModelFacts | UnknownModel, length: Wanted | None) -> int:
    """Tokens of a sequence that several rows fit into."""
    most = model.max_positions if isinstance(model, ModelFacts) else None
    wanted = max(PACK_LENGTH, length.value if length else 0)
    return min(wanted, most or wanted)


def _speed(machine: Machine, ranks: int, pack: int, lengths: Lengths | None) -> dict[str, Wanted]:
    rows = max(1, pack // lengths.most) if lengths else 1
    packs = max(1, ROWS_A_RANK_AND_STEP // rows) * ranks
    found = {
        "data.packing": Wanted(
            True, "speed: several rows in one sequence, so that nothing is padded; none sees another"
        ),
        "data.max_length": Wanted(pack, f"tokens; speed: a sequence holds {counted(rows, 'row')} or more"),
        "training.batch_size": Wanted(1, "speed: such sequences, at a time"),
        "training.global_batch_size": Wanted(packs, "such sequences a step: about as many rows as by default"),
        "benchmark.num_prompts": Wanted(50, "speed: answering takes time; 200 give narrower intervals"),
    }
    if machine.gpus and machine.has_liger:
        found["training.liger"] = Wanted(True, "speed: Liger's kernels are installed")
    return found


def _memory(machine: Machine, ranks: int) -> dict[str, Wanted]:
    per_step = ROWS_A_RANK_AND_STEP * ranks
    found = {
        "training.batch_size": Wanted(1, "memory: one row at a time"),
        "training.global_batch_size": Wanted(
            per_step, f"the same rows a step as by default on {counted(ranks, 'rank')}"
        ),
        "training.gradient_checkpointing": Wanted(
            True, "memory: activations are computed twice, up to half as much work again"
        ),
    }
    if machine.gpus and machine.has_bitsandbytes and is_setting("model.quantization"):
        found["model.quantization"] = Wanted("4bit", "memory: the frozen weights take a quarter (QLoRA)")
    if not machine.gpus:
        found["launch.cpu_procs"] = Wanted(1, "memory: each rank holds the whole model")
        found["training.global_batch_size"] = Wanted(ROWS_A_RANK_AND_STEP, "the same rows a step as by default")
    return found


def _quality() -> dict[str, Wanted]:
    return {
        "lora.target_modules": Wanted(
            "all-linear",
            "quality: adapters on all linear layers come nearest to training all weights (QLoRA, section 4)",
        ),
        "lora.r": Wanted(16, "quality: twice the default; more rows may deserve more"),
        "training.lr_scheduler": Wanted("cosine", "quality: slow at both ends"),
        "training.warmup_steps": Wanted(0.03, "quality: a share of all steps"),
        "training.evaluate_every": Wanted("epoch", "quality: the held-out loss shows when more epochs do harm"),
        "training.keep_best": Wanted(True, "quality: the checkpoint with the lowest held-out loss stays"),
    }


def _length(aim: str, model: ModelFacts | UnknownModel, lengths: Lengths | None) -> Wanted | None:
    """As long as the data needs, and no longer than the model can."""
    if lengths is None:
        return None
    need = lengths.longest if aim == "quality" else lengths.most
    rounded = max(STEP_LENGTH, -(-need // STEP_LENGTH) * STEP_LENGTH)
    most = model.max_positions if isinstance(model, ModelFacts) else None
    if most is not None and rounded > most:
        return Wanted(most, f"tokens; the model's most, longer rows (about {lengths.longest:,}) are cut")
    whose = "the longest row" if aim == "quality" else "99 of 100 rows"
    return Wanted(rounded, f"tokens; {whose} about {need:,}")


def everyone_changes() -> dict[str, Any]:
    """The settings that are written whatever they are, since everyone changes them, with their defaults."""
    names: tuple[str, ...] = ("data.max_length", "data.held_out", "lora.r", "lora.lora_alpha")
    names += ("training.num_epochs", "training.batch_size", "training.learning_rate")
    return {name: default_of(name) for name in names}
