"""DeepSpeed's ds_config.json: what lft writes itself (`lft plan --write DIR`) for zero2 and zero3."""

import re
from typing import Any

from lft.foreign.document import KeyPath
from lft.foreign.draft import AS_IN_LFT, Draft, Rule, all_of, choice, missing, needless, to, translate_keys
from lft.foreign.trainer_arguments import OTHER_OPTIMIZER, OTHER_SCHEDULE
from lft.foreign.values import flag, is_off, number, text, whole

STAGES = {0: "ddp", 1: "zero2", 2: "zero2", 3: "zero3"}
AUTO = "decided by the trainer there, and by lft here"
ON_DEVICE = "nothing is moved to the CPU or to disks"
BY_NAME = re.compile(r"(?:zero|z)_?([0-3])", re.I)


def deepspeed(draft: Draft, value: Any) -> None:
    """A configuration in place, or the name of its file."""
    if is_off(value):
        draft.drop(AS_IN_LFT)
    elif isinstance(value, dict):
        key = draft.key
        translate_keys(draft, prefixed(DEEPSPEED, key), value, key)
    else:
        _linked(draft, text(value))


def stage(draft: Draft, value: Any) -> None:
    """ZeRO's stage. One rank has nothing to share."""
    number_of_stage = whole(value)
    remark = {1: "ZeRO 2 also shares the gradients, at no cost", 0: "ZeRO 0 is plain data parallelism"}
    draft.set(
        "launch.strategy", STAGES.get(number_of_stage, f"stage {number_of_stage}"), remark.get(number_of_stage, "")
    )


def prefixed(table: dict[str, Rule], key: KeyPath) -> dict[str, Rule]:
    """A table for a section."""
    return {".".join((*key, name)): rule for name, rule in table.items()}


def _linked(draft: Draft, name: str) -> None:
    found, key = draft.find(name), draft.key
    if found is None:
        by_name = BY_NAME.search(name.rsplit("/", 1)[-1])
        if by_name is None:
            draft.lack(f"{name} is not here, and its name does not say which stage it asks for; see --strategy")
        else:
            draft.set("launch.strategy", STAGES[int(by_name[1])], f"by the name of {name}, which is not here")
        return
    inner = Draft("DeepSpeed", found, draft.ranks)
    translate_keys(inner, DEEPSPEED, found.values)
    draft.agree("read as well", name)
    for setting, value in inner.settings.items():
        if setting not in draft.settings and setting.startswith(("launch.", "training.max_grad_norm")):
            draft.settings[setting], draft.sources[setting] = value, inner.sources[setting]
    draft.translated += inner.translated
    draft.needless += inner.needless
    draft.missing += inner.missing
    draft.key = key


def _unless_auto(rule: Rule) -> Rule:
    return lambda draft, value: draft.drop(AUTO) if value == "auto" else rule(draft, value)


def _offload(draft: Draft, value: Any) -> None:
    device = value.get("device", "none") if isinstance(value, dict) else value
    draft.drop("nothing is moved there, either") if is_off(device) else draft.lack(ON_DEVICE)


def _micro_batches(draft: Draft, value: Any) -> None:
    rows = draft.values.get("train_micro_batch_size_per_gpu", "auto")
    total = draft.values.get("train_batch_size", "auto")
    if rows == "auto" or total != "auto":
        draft.drop("follows from training.batch_size, training.global_batch_size and the ranks")
        return
    size = whole(rows) * whole(value) * draft.ranks
    draft.set("training.global_batch_size", size, f"{whole(rows)} x {whole(value)} x {draft.ranks} ranks here")


def _enabled(precision: str) -> Rule:
    def rule(draft: Draft, value: Any) -> None:
        if flag(value):
            draft.set("launch.precision", precision)
        else:
            draft.drop("lft chooses the number type by checkpoint and device")

    return rule


def _optimizer(draft: Draft, value: Any) -> None:
    if str(value).lower() in ("adamw", "adam"):
        draft.drop("lft trains with AdamW")
    else:
        draft.lack(OTHER_OPTIMIZER)


def _steps(setting: str) -> Rule:
    return lambda draft, value: (
        draft.drop("0, as by default") if whole(value) == 0 else _set(draft, setting, whole(value))
    )


def _set(draft: Draft, setting: str, value: Any) -> None:
    draft.set(setting, value)


_TABLE: dict[str, Rule] = {
    "train_batch_size": to("training.global_batch_size", whole),
    "train_micro_batch_size_per_gpu": to("training.batch_size", whole),
    "gradient_accumulation_steps": _micro_batches,
    "gradient_clipping": to("training.max_grad_norm", number),
    "bf16.enabled": _enabled("bf16"),
    "fp16.enabled": _enabled("fp16"),
    "zero_optimization.stage": stage,
    "zero_optimization.offload_optimizer": _offload,
    "zero_optimization.offload_param": _offload,
    "zero_optimization.cpu_offload": missing(ON_DEVICE),
    "optimizer.type": _optimizer,
    "optimizer.params.lr": to("training.learning_rate", number),
    "optimizer.params.weight_decay": to("training.weight_decay", number),
    "scheduler.type": choice(
        "training.lr_scheduler",
        {"warmuplr": "constant", "warmupdecaylr": "linear", "warmupcosinelr": "cosine"},
        OTHER_SCHEDULE,
    ),
    "scheduler.params.warmup_max_lr": to("training.learning_rate", number),
    "scheduler.params.warmup_num_steps": _steps("training.warmup_steps"),
    "scheduler.params.total_num_steps": _steps("training.max_steps"),
    **all_of(
        needless,
        {
            "lft writes DeepSpeed's buffers and buckets by itself": "zero_optimization.* communication_data_type"
            " zero_allow_untested_optimizer zero_force_ds_cpu_optimizer prescale_gradients sparse_gradients"
            " gradient_predivide_factor seq_parallel_communication_data_type",
            "the loss is scaled by itself in fp16": "fp16.* bf16.*",
            "AdamW has its ordinary arguments": "optimizer.params.* scheduler.params.*",
            "lft shows and keeps progress by itself": "steps_per_print wall_clock_breakdown flops_profiler"
            " memory_breakdown"
            " dump_state tensorboard wandb csv_monitor comms_logger monitor_config comms_config",
            "a remark": "_comment comment",
            "lft decides where activations are computed again": "activation_checkpointing",
            "lft's own checkpoints": "checkpoint load_universal_checkpoint",
        },
    ),
    **all_of(
        missing,
        {
            "computes in 16 or 32 bits": "fp8 float8 amp torch_autocast",
            "no tensor or sequence parallelism": "tensor_parallel autotp_size sequence_parallel_size pipeline",
            "not compiled; the results are the same": "compile",
            "an optimizer of its own": "data_efficiency curriculum_learning progressive_layer_drop eigenvalue"
            " elasticity autotuning",
        },
    ),
}
DEEPSPEED: dict[str, Rule] = {key: _unless_auto(rule) for key, rule in _TABLE.items()}
