"""Keys of transformers' TrainingArguments, which LLaMA-Factory and TRL pass on (transformers 5.23)."""

from typing import Any

from lft.foreign.draft import AS_IN_LFT, Draft, Rule, all_of, choice, fixed, missing, needless, to
from lft.foreign.trackers import report_to
from lft.foreign.values import count_or_share, flag, is_off, number, text, whole

OPTIMIZERS = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw_apex_fused", "adamw", "default"), "adamw"),
    **dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit"), "adamw_8bit"),
    "paged_adamw_8bit": "paged_adamw_8bit",
}
SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant"}
OTHER_OPTIMIZER = "trains with AdamW instead; a learning rate that suits another optimizer may not suit it"
OTHER_SCHEDULE = "lft has linear, cosine and constant, each with warm-up; its default, linear, stays"
OWN_KERNELS = "lft chooses its own kernels for attention, loss and adapter, and announces them"
OWN_LOADING = "rows are memory-mapped and read ahead by a thread; there are no workers to set"
OWN_RANKS = "lft starts and joins its ranks itself"
GOES_ON = "the same command goes on from the newest checkpoint by itself; --resume never begins anew"


def batch(key: str) -> Rule:
    """Rows at a time on a device; `key` is that of the micro-batches per step."""

    def rule(draft: Draft, value: Any) -> None:
        if draft.set("training.batch_size", whole(value)):
            set_global_batch(draft, whole(value), draft.values.get(key))

    return rule


def accumulation(rows: str, default: int) -> Rule:
    """Micro-batches per step; `rows` is the key of the rows in each, and `default` their number without it."""

    def rule(draft: Draft, value: Any) -> None:
        micro = draft.values.get(rows)
        set_global_batch(draft, whole(default if micro is None else micro), value)

    return rule


def set_global_batch(draft: Draft, rows: int, micro_batches: Any) -> None:
    """Others count rows per rank and step, lft over all ranks: as on the ranks here."""
    count = 1 if micro_batches in (None, "auto") else whole(micro_batches)
    remark = f"{rows} x {count} x {draft.ranks} ranks here; lft counts over all ranks"
    if draft.settings.get("training.global_batch_size") == rows * count * draft.ranks:
        draft.agree("training.global_batch_size", remark)
        return
    draft.set("training.global_batch_size", rows * count * draft.ranks, remark)


def epochs(draft: Draft, value: Any) -> None:
    """Lft counts whole epochs."""
    asked = number(value)
    if asked == int(asked) and asked >= 1:
        draft.set("training.num_epochs", int(asked))
    else:
        draft.set("training.num_epochs", max(1, round(asked)), f"{asked} there; lft counts whole epochs")


def most_steps(draft: Draft, value: Any) -> None:
    """-1 is none."""
    if whole(value) > 0:
        draft.set("training.max_steps", whole(value))
    else:
        draft.drop("no limit")


def warmup_share(draft: Draft, value: Any) -> None:
    """Steps, where they are given too, count there."""
    steps = draft.values.get("warmup_steps")
    if steps is not None and number(steps) > 0:
        draft.drop("warmup_steps counts")
    else:
        draft.set("training.warmup_steps", number(value), "a share of all steps")


def save_strategy(draft: Draft, value: Any) -> None:
    """When to save."""
    word = str(value).lower()
    if word == "epoch":
        draft.set("training.save_every", "epoch")
    elif word == "steps":
        draft.drop("save_steps says when")
    elif word == "best":
        draft.set("training.keep_best", True, "needs training.evaluate_every")
    else:
        draft.lack("lft saves every 10 minutes and after the last step, so that a run can go on; training is the same")


def save_steps(draft: Draft, value: Any) -> None:
    """Counts where nothing else says when."""
    if str(draft.values.get("save_strategy", "steps")).lower() not in ("steps", "best"):
        draft.drop("save_strategy says when")
    elif number(value) < 1:
        draft.lack(f"a share of all steps cannot be said; {_stays('save_every')}")
    else:
        draft.set("training.save_every", whole(value))


def evaluation(draft: Draft, value: Any) -> None:
    """When to measure the held-out loss."""
    word = str(value).lower()
    if word == "epoch":
        draft.set("training.evaluate_every", "epoch")
    elif word == "steps" and draft.values.get("eval_steps") is None:
        draft.set("training.evaluate_every", whole(draft.values.get("logging_steps") or 500), "every logging step")
    else:
        draft.drop("eval_steps says when" if word == "steps" else AS_IN_LFT)


def eval_steps(draft: Draft, value: Any) -> None:
    """Counts where steps are asked for, or nothing else is."""
    asked = draft.values.get("eval_strategy", draft.values.get("evaluation_strategy", "steps"))
    if str(asked).lower() != "steps":
        draft.drop("eval_strategy says when")
    elif 0 < number(value) < 1:
        draft.set("training.evaluate_every", "epoch", "a share of all steps there")
    elif is_off(value):
        draft.drop(AS_IN_LFT)
    else:
        draft.set("training.evaluate_every", whole(value))


def half(precision: str) -> Rule:
    """bf16 or fp16: true, false, or auto."""

    def rule(draft: Draft, value: Any) -> None:
        if str(value).lower() == "auto":
            draft.drop("lft chooses by checkpoint and device, too")
        elif flag(value):
            draft.set("launch.precision", precision)
        else:
            draft.drop("lft chooses the number type by checkpoint and device")

    return rule


def repository(draft: Draft, value: Any) -> None:
    """Where the adapter goes on the Hub; others complete a name by who is logged in."""
    if is_off(draft.values.get("push_to_hub", True)):
        draft.drop("push_to_hub is not set")
    elif "/" not in text(value):
        draft.lack("upload.repo_name needs the owner too: --repo-name OWNER/" + text(value))
    elif draft.set("upload.repo_name", text(value)):
        draft.settings["upload.create_new"] = True
        draft.sources["upload.create_new"] = "as there, the repository is created where there is none"


def push(draft: Draft, value: Any) -> None:
    """Whether to upload."""
    if is_off(value):
        draft.drop(AS_IN_LFT)
    elif draft.values.get("hub_model_id") is None:
        draft.lack("nothing is uploaded without a name: --repo-name OWNER/NAME")
    else:
        draft.drop("hub_model_id says where to")


def on_cpu(draft: Draft, value: Any) -> None:
    """Leave GPUs alone."""
    if flag(value):
        draft.set("launch.gpus", 0)
    else:
        draft.drop(AS_IN_LFT)


def log_every(draft: Draft, value: Any) -> None:
    """A share of all steps cannot be said."""
    if number(value) < 1:
        draft.lack(f"a share of all steps cannot be said; {_stays('log_every')}")
    else:
        draft.set("training.log_every", whole(value))


def _stays(setting: str) -> str:
    return f"training.{setting} keeps its default"


NEEDLESS = {
    OWN_LOADING: "dataloader_num_workers dataloader_pin_memory dataloader_prefetch_factor dataloader_drop_last"
    " dataloader_persistent_workers dataloader_multiprocessing_context dataloader_in_order remove_unused_columns",
    OWN_RANKS: "ddp_timeout ddp_backend ddp_bucket_cap_mb ddp_broadcast_buffers ddp_find_unused_parameters ddp_static_graph"
    " local_rank full_determinism accelerator_config",
    GOES_ON: "resume_from_checkpoint overwrite_output_dir ignore_data_skip restore_callback_states_from_checkpoint"
    " enable_jit_checkpoint",
    "lft shows and keeps progress, loss and speed by itself": "log_level log_level_replica logging_strategy"
    " logging_first_step"
    " log_on_each_node logging_nan_inf_filter disable_tqdm include_num_input_tokens_seen include_tokens_per_second"
    " debug"
    " skip_memory_metrics plot_loss run_name logging_dir",
    "the token comes from `hf auth login` or HF_TOKEN, never from a file": "hub_token",
    "lft uploads once, when the run has finished": "hub_strategy hub_always_push",
    "the verb says what is done: lft launch trains, lft benchmark measures": "do_train do_eval do_predict",
    "held-out rows are measured in batches that fit": "per_device_eval_batch_size eval_accumulation_steps eval_delay"
    " eval_on_start prediction_loss_only eval_do_concat_batches batch_eval_metrics include_for_metrics"
    " eval_use_gather_object bf16_full_eval fp16_full_eval",
    "the loss is the mean over all trained tokens of the global batch, on any number of ranks": "average_tokens_across_devices",
    "decided by lft where activations are computed again": "gradient_checkpointing_kwargs activation_checkpointing_kwargs",
    "float32 is multiplied as TF32 on GPUs that have it": "tf32",
    "a checkpoint is saved whole, so that a run can go on exactly": "save_only_model save_safetensors save_on_each_node",
    "the kernels of Liger that lft uses are the same for all models": "liger_kernel_config",
    "the labels are known": "label_names length_column_name",
    "lft clears memory where it has to": "torch_empty_cache_steps use_cache",
    "lft chooses by the lowest held-out loss": "metric_for_best_model greater_is_better",
}
MISSING = {
    "a tracker's own settings are read by itself, from its environment": "project trackio_space_id trackio_bucket_id"
    " trackio_static_space_id",
    "the learning rate falls to 0": "lr_scheduler_kwargs",
    "AdamW has its ordinary arguments": "optim_args optim_target_modules",
    "no noise on the embeddings": "neftune_noise_alpha",
    "the model is not compiled; the results are the same": "torch_compile torch_compile_backend torch_compile_mode",
    "the batch does not shrink by itself; after running out of memory lft says which run fits": "auto_find_batch_size",
    "the branch of the repository is main": "hub_revision",
    "no sequence or tensor parallelism": "parallelism_config",
    "the order of rows follows from training.seed": "data_seed",
}
TRAINER: dict[str, Rule] = {
    **all_of(needless, NEEDLESS),
    **all_of(missing, MISSING),
    "output_dir": to("output_dir"),
    "per_device_train_batch_size": batch("gradient_accumulation_steps"),
    "gradient_accumulation_steps": accumulation("per_device_train_batch_size", 8),
    "num_train_epochs": epochs,
    "max_steps": most_steps,
    "learning_rate": to("training.learning_rate", number),
    "lr_scheduler_type": choice("training.lr_scheduler", SCHEDULES, OTHER_SCHEDULE),
    "warmup_steps": to("training.warmup_steps", count_or_share),
    "warmup_ratio": warmup_share,
    "optim": choice("training.optimizer", OPTIMIZERS, OTHER_OPTIMIZER),
    "weight_decay": to("training.weight_decay", number),
    "adam_beta1": fixed(0.9, "AdamW's first beta is 0.9"),
    "adam_beta2": fixed(0.999, "AdamW's second beta is 0.999"),
    "adam_epsilon": fixed(1e-8, "AdamW's epsilon is 1e-8"),
    "max_grad_norm": to("training.max_grad_norm", number),
    "label_smoothing_factor": to("training.label_smoothing", number),
    "bf16": half("bf16"),
    "fp16": half("fp16"),
    "gradient_checkpointing": to("training.gradient_checkpointing", flag),
    "activation_checkpointing": to("training.gradient_checkpointing", flag),
    "use_liger_kernel": to("training.liger", flag),
    "logging_steps": log_every,
    "eval_strategy": evaluation,
    "evaluation_strategy": evaluation,
    "eval_steps": eval_steps,
    "save_strategy": save_strategy,
    "save_steps": save_steps,
    "save_total_limit": to("training.keep_last", whole),
    "load_best_model_at_end": to("training.keep_best", flag),
    "report_to": report_to,
    "push_to_hub": push,
    "hub_model_id": repository,
    "hub_private_repo": to("upload.private", flag),
    "seed": to("training.seed", whole),
    "use_cpu": on_cpu,
    "group_by_length": to("training.group_by_length", flag),
    "train_sampling_strategy": choice(
        "training.group_by_length",
        {"random": False, "group_by_length": True},
        "rows are shuffled by training.seed",
    ),
}
