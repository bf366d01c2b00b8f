"""Fully sharded data parallel, as accelerate, axolotl and the Trainer configure it; keys with or without `fsdp_` in front."""

from typing import Any

from lft.foreign.draft import AS_IN_LFT, Draft, Rule, all_of, missing, needless, to
from lft.foreign.values import flag, is_off, names

SHARES_THE_MODEL = "lft's fsdp shares out parameters, gradients and optimizer, and gathers each layer when it is needed"


def fsdp(draft: Draft, value: Any) -> None:
    """The Trainer's list of words, for example "full_shard auto_wrap"."""
    if is_off(value):
        draft.drop(AS_IN_LFT)
        return
    words = {word for part in names(value) for word in part.split()}
    draft.set("launch.strategy", "fsdp")
    if "offload" in words:
        draft.lack("parameters stay on the device; lft moves nothing to the CPU")


def fsdp_section(draft: Draft, section: str = "fsdp_config") -> None:
    """A section of FSDP's own asks for it, unless something else does."""
    if draft.values.get(section) and "launch.strategy" not in draft.settings:
        draft.key = (section,)
        draft.set("launch.strategy", "fsdp")


def _sharding(draft: Draft, value: Any) -> None:
    word = str(value).upper()
    if word in ("FULL_SHARD", "1", "TRUE"):
        draft.drop(SHARES_THE_MODEL)
    else:
        draft.lack(f"{SHARES_THE_MODEL}; where the model fits, launch.strategy zero2 shares less")


def _checkpointing(draft: Draft, value: Any) -> None:
    draft.set("training.gradient_checkpointing", flag(value))


_KEYS: dict[str, Rule] = {
    "sharding_strategy": _sharding,
    "reshard_after_forward": _sharding,
    "offload_params": missing("parameters stay on the device; lft moves nothing to the CPU"),
    "activation_checkpointing": _checkpointing,
    **all_of(
        needless,
        {
            "lft wraps each layer": "auto_wrap_policy transformer_layer_cls_to_wrap min_num_params",
            "PyTorch's second version of FSDP": "version use_orig_params sync_module_states",
            "a checkpoint serves every strategy, and the adapter is saved whole": "state_dict_type",
            "rank by rank, and read once from memory-mapped files": "cpu_ram_efficient_loading",
            "left to PyTorch": "backward_prefetch forward_prefetch limit_all_gathers",
            "the base in the number type of launch.precision, sums in float32": "mixed_precision_policy",
        },
    ),
}
FSDP: dict[str, Rule] = {**_KEYS, **{f"fsdp_{key}": rule for key, rule in _KEYS.items()}}
TRAINER_FSDP: dict[str, Rule] = {
    "fsdp": fsdp,
    **{f"fsdp_config.{key}": rule for key, rule in FSDP.items()},
    "fsdp_transformer_layer_cls_to_wrap": needless("lft wraps each layer"),
    "fsdp_config.fsdp_activation_checkpointing": to("training.gradient_checkpointing", flag),
}
