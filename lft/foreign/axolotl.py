"""axolotl's configuration (as of 0.17, July 2026)."""

from typing import Any

from lft.foreign.axolotl_data import datasets, pretraining
from lft.foreign.deepspeed import deepspeed
from lft.foreign.draft import AS_IN_LFT, Draft, Rule, all_of, choice, fixed, missing, needless, refused, to
from lft.foreign.fsdp import FSDP, fsdp
from lft.foreign.trackers import tracker
from lft.foreign.trainer_arguments import (
    OPTIMIZERS,
    OTHER_OPTIMIZER,
    OTHER_SCHEDULE,
    OWN_KERNELS,
    OWN_LOADING,
    SCHEDULES,
    TRAINER,
    accumulation,
    batch,
    epochs,
    eval_steps,
    half,
)
from lft.foreign.values import count_or_share, flag, is_off, names, number, text, whole

RECOGNISED_BY = {"base_model", "sequence_len", "sample_packing", "lora_target_linear", "val_set_size"}


def adapter(draft: Draft, value: Any) -> None:
    """lora, qlora, or all weights."""
    if str(value).lower() == "qlora":
        draft.drop("LoRA; load_in_4bit quantizes the base")
    elif str(value).lower() == "lora":
        draft.drop("lft trains LoRA")
    else:
        draft.lack("lft trains a LoRA adapter")


def targets(draft: Draft, value: Any) -> None:
    """Names, or a pattern, which peft reads as one."""
    if isinstance(value, str) and any(sign in value for sign in "|(*\\"):
        draft.lack("a pattern over the names of layers; lft takes the ends of names: lora.target_modules stays auto")
    elif names(value) == ["all-linear"]:
        draft.set("lora.target_modules", "all-linear")
    else:
        draft.set("lora.target_modules", names(value))


def linear(draft: Draft, value: Any) -> None:
    """All linear layers; what is listed besides counts with them."""
    if flag(value):
        draft.set("lora.target_modules", "all-linear")
    else:
        draft.drop("lora_target_modules says which" if draft.values.get("lora_target_modules") else AS_IN_LFT)


def per_epoch(setting: str) -> Rule:
    """So often an epoch."""

    def rule(draft: Draft, value: Any) -> None:
        if is_off(value):
            draft.drop(AS_IN_LFT)
        else:
            count = whole(value)
            draft.set(
                setting,
                "epoch",
                "" if count == 1 else f"{count} times an epoch there; also a number of steps, or 10min",
            )

    return rule


def held_out(draft: Draft, value: Any) -> None:
    """From 1 a number of rows, below it a share."""
    draft.set(
        "data.held_out", count_or_share(value), "" if number(value) else "without held-out rows there is no benchmark"
    )


def loss_on(draft: Draft, value: Any) -> None:
    """Whether prompts are trained too."""
    if flag(value):
        draft.set("data.loss_on", "all")
    else:
        draft.drop("lft trains the answers alone, too")


def chat_template(draft: Draft, value: Any) -> None:
    """One of axolotl's own by name, or the tokenizer's."""
    word = text(value)
    if word == "tokenizer_default" or word.startswith("tokenizer_default_fallback_"):
        draft.drop("lft uses the tokenizer's chat template")
    elif word == "jinja":
        draft.drop("chat_template_jinja holds it")
    else:
        draft.lack(
            f"axolotl's own template {word}; lft uses the tokenizer's, else prompt, line feed, answer; "
            "data.chat_template takes one of your own (Jinja)"
        )


def quantized(bits: str) -> Rule:
    """The base model in 4 or 8 bits."""
    rule = to(
        "model.quantization",
        lambda value: bits,
        without="the base model is kept in 16 bits: the same training, in more memory",
    )
    return lambda draft, value: draft.drop("kept in 16 or 32 bits") if is_off(value) else rule(draft, value)


def checkpointing(draft: Draft, value: Any) -> None:
    """Also with the activations moved away."""
    if str(value).startswith("offload"):
        draft.set("training.gradient_checkpointing", True, "what is kept stays on the device")
    else:
        draft.set("training.gradient_checkpointing", flag(value))


def liger(draft: Draft, value: Any) -> None:
    """Any of its kernels."""
    if is_off(value):
        draft.drop(AS_IN_LFT)
    elif "training.liger" in draft.settings:
        draft.agree("training.liger", "")
    else:
        draft.set("training.liger", True)


def adapter_start(draft: Draft, value: Any) -> None:
    """An adapter to go on with."""
    draft.lack("lft starts a new adapter; it goes on only with runs of its own")


def rows_too_long(draft: Draft, value: Any) -> None:
    """Cut, dropped or refused."""
    if str(value).lower() == "truncate":
        draft.drop("lft cuts rows at data.max_length, too")
    else:
        draft.lack("rows longer than data.max_length are cut at the end, not left out")


NEEDLESS = {
    OWN_KERNELS: "flash_attention xformers_attention sdp_attention sdpa_varlen flex_attention flex_attn_compile_kwargs"
    " eager_attention sage_attention attn_implementation flash_attn_cross_entropy flash_attn_rms_norm"
    " flash_attn_fuse_mlp"
    " flash_optimum flash_attn_d512 large_head_attention lora_mlp_kernel lora_qkv_kernel lora_o_kernel"
    " lora_embedding_kernel"
    " chunked_cross_entropy chunked_cross_entropy_num_chunks cut_cross_entropy liger_fused_linear_cross_entropy"
    " liger_cross_entropy unsloth_lora_mlp unsloth_lora_qkv unsloth_lora_o use_kernels fused_attn_kernel"
    " gemma4_hybrid_attn_impl lora_fan_in_fan_out pretrain_multipack_attn use_dsv4_kernels use_glm_dsa_kernels",
    OWN_LOADING: "dataset_processes dataset_num_proc dataset_keep_in_memory skip_prepare_dataset dataset_shard_num"
    " dataset_shard_idx num_dataset_shards_to_save pretrain_multipack_buffer_size streaming_multipack_buffer_size",
    "tokens are kept in lft's cache, named by content": "dataset_prepared_path",
    "the model's own files say which classes to use": "model_type tokenizer_type processor_type tokenizer_use_fast"
    " tokenizer_legacy"
    " is_falcon_derived_model is_llama_derived_model is_mistral_derived_model is_qwen_derived_model"
    " tokenizer_save_jinja_files",
    "packs are made by best fit over all rows; held-out rows are measured alike": "eval_sample_packing"
    " sample_packing_eff_est sample_packing_group_size sample_packing_bin_size sample_packing_sequentially"
    " total_num_tokens"
    " total_supervised_tokens sample_packing_seq_len_multiplier multipack_real_batches"
    " sample_packing_mp_start_method batch_flattening",
    "lft pads no more than a batch needs": "pad_to_sequence_len pad_to_multiple_of",
    "held-out rows are measured in batches that fit": "eval_batch_size eval_sequence_len eval_table_size"
    " eval_max_new_tokens"
    " do_causal_lm_eval eval_causal_lm_metrics do_bench_eval bench_dataset bench_split",
    "a loss that is not finite stops the run by itself": "loss_watchdog_threshold loss_watchdog_patience",
    "plugins choose kernels, which lft does by itself": "plugins",
    "what lft accepts is strict: an unknown key is an error": "strict",
    "lft loads straight to the device": "base_model_ignore_patterns low_cpu_mem_usage"
    " experimental_skip_move_to_device device device_map max_memory gpu_memory_limit"
    " qlora_sharded_model_loading lora_on_cpu torchdistx_path",
    "lft starts its ranks itself": "ddp world_size local_rank use_ray ray_num_workers resources_per_worker",
    "the token comes from `hf auth login` or HF_TOKEN": "hf_use_auth_token",
    "rows are shuffled by training.seed": "shuffle_merged_datasets shuffle_before_merging_datasets",
    "lft knows the end of an answer from the template and trains it": "eot_tokens train_on_eot fix_untrained_tokens",
    "after running out of memory lft says which run fits": "gc_steps gc_collect_steps",
    "only for looking into axolotl": "test_value debug is_preprocess profiler_steps profiler_steps_start"
    " include_tkps use_otel_metrics"
    " otel_metrics_host otel_metrics_port save_first_step axolotl_config_path merge_method merge_lora",
    "FSDP is PyTorch's second version": "fsdp_version fsdp_final_state_dict_type",
    "the base's numbers in the number type of launch.precision": "float32 fp32_norms fp32_norm_classes"
    " embeddings_skip_upcast",
    "lft goes on by itself from the newest checkpoint": "auto_resume_from_checkpoints",
    "lft changes no vocabulary": "mean_resizing_embeddings shrink_embeddings",
}
MISSING = {
    "a tracker's own settings are read by itself, from its environment": "wandb_entity wandb_watch wandb_name"
    " wandb_log_model wandb_run_id wandb_mode mlflow_run_name trackio_run_name trackio_space_id",
    "no reports there; training.trackers can name tensorboard, wandb, trackio, mlflow": "use_comet comet_project_name"
    " use_swanlab swanlab_project swanlab_experiment_name swanlab_description swanlab_mode swanlab_workspace"
    " swanlab_log_model swanlab_log_completions swanlab_completion_log_interval swanlab_completion_max_buffer"
    " swanlab_api_key swanlab_lark_webhook_url swanlab_lark_secret",
    "tokens keep the tokenizer's own roles, and none is added": "special_tokens tokens added_tokens_overrides"
    " tokenizer_config"
    " resize_token_embeddings_to_32x tokenizer_use_mistral_common",
    "the model's own configuration is used": "overrides_of_model_config model_config base_model_config cls_model_config"
    " model_quantization_config model_quantization_config_kwargs use_onebitllms",
    "activations stay on the device; gradient checkpointing saves memory": "activation_offloading layer_offloading"
    " selective_checkpointing tiled_mlp tiled_mlp_num_shards tiled_mlp_use_original_mlp",
    "lft trains the adapter alone": "unfrozen_parameters lora_target_parameters embedding_lr embedding_lr_scale"
    " lr_groups"
    " peft_trainable_token_indices peft_layer_replication loraplus_lr_embedding lora_rank_pattern lora_alpha_pattern",
    "the run does not stop early; training.keep_best keeps the best checkpoint": "early_stopping_patience",
    "every row is trained from its own beginning": "use_pose pose_split_on_token_ids pose_max_context_len"
    " pose_num_chunks",
    "repeated rows are trained; the label audit counts them": "dataset_exact_deduplication",
    "short rows are trained too": "min_sample_len",
    "texts only": "freeze_mm_modules image_size image_resize_algorithm processor_kwargs",
    "the learning rate falls to 0": "cosine_min_lr_ratio cosine_constant_lr_ratio eta_min lr_div_factor"
    " lr_quadratic_warmup"
    " jagged_restart_steps jagged_restart_warmup_steps jagged_restart_anneal_steps",
    "held-out rows come from the training data: data.held_out": "test_datasets",
    "the data set is not uploaded": "push_dataset_to_hub",
    "mixtures of experts are trained as transformers has them": "quantize_moe_experts experts_implementation use_scattermoe"
    " use_sonicmoe llama4_linearized_experts expert_parallel_size expert_parallel_num_nvl_bytes"
    " expert_parallel_token_capacity",
    "no sequence or tensor parallelism: ranks share rows, or the model by zero3 or fsdp": "sequence_parallel_degree"
    " context_parallel_size heads_k_stride ring_attn_func tensor_parallel_size dp_shard_size dp_replicate_size",
    "computes in 16 or 32 bits": "fp8 fp8_enable_fsdp_float8_all_gather",
    "4-bit weights as nf4": "bnb_config_kwargs",
    "rows are trained in the order of training.seed": "curriculum_sampling",
    "the chat template gets its own default arguments": "chat_template_kwargs",
    "no system text is added to rows that have none": "default_system_message",
    "AdamW is trained with its ordinary arguments": "adam_beta3 adam_epsilon2 adam_eps dion_lr dion_momentum",
    "answers of the base and the tuned model are compared when the run has finished": "generate_samples num_generation_samples"
    " generation_max_new_tokens generation_temperature",
    "the weights as they were published": "gptq gptq_groupsize gptq_model_v1 gptq_disable_exllama reinit_weights peft",
    "another loss than cross entropy": "use_eaft eaft_alpha eaft_k",
}
ANOTHER_TRAINING = {
    "lft trains on examples; this trains by preferences or rewards": "rl reward_model process_reward_model",
    "lft trains a LoRA adapter on all rows; this is another method": "relora lisa_n_layers qat diffusion ebft",
}
AXOLOTL: dict[str, Rule] = {
    **{
        key: rule
        for key, rule in TRAINER.items()
        if not key.startswith(("per_device", "num_train", "lr_scheduler_type"))
    },
    **all_of(needless, NEEDLESS),
    **all_of(missing, MISSING),
    **all_of(refused, ANOTHER_TRAINING),
    **{f"fsdp_config.{key}": rule for key, rule in FSDP.items()},
    "base_model": to("model.name"),
    "revision_of_model": to("model.revision"),
    "trust_remote_code": to("model.trust_remote_code", flag),
    "load_in_4bit": quantized("4bit"),
    "load_in_8bit": quantized("8bit"),
    "datasets": datasets,
    "pretraining_dataset": pretraining,
    "streaming": to("data.streaming", flag),
    "chat_template": chat_template,
    "chat_template_jinja": to("data.chat_template"),
    "sequence_len": to("data.max_length", whole),
    "excess_length_strategy": rows_too_long,
    "sample_packing": to("data.packing", flag, "rows of a pack do not see each other"),
    "max_packed_sequence_len": to("data.max_length", whole, "packs of so many tokens"),
    "val_set_size": held_out,
    "train_on_inputs": loss_on,
    "adapter": adapter,
    "lora_model_dir": adapter_start,
    "lora_r": to("lora.r", whole),
    "lora_alpha": to("lora.lora_alpha", whole),
    "lora_dropout": to("lora.lora_dropout", number),
    "lora_target_modules": targets,
    "lora_target_linear": linear,
    "lora_modules_to_save": to("lora.modules_to_save", names, without="only the adapter is trained and saved"),
    "peft_use_dora": to("lora.use_dora", flag, without="plain LoRA, without DoRA's magnitudes"),
    "peft_use_rslora": to("lora.use_rslora", flag, without="the update is scaled by alpha / r, not by alpha / sqrt(r)"),
    "peft_init_lora_weights": to("lora.init_lora_weights", text, without="the adapter starts as LoRA does"),
    "peft_layers_to_transform": to(
        "lora.layers_to_transform", lambda value: [whole(each) for each in value], without="all layers get an adapter"
    ),
    "loraplus_lr_ratio": to(
        "lora.loraplus_lr_ratio", number, without="one learning rate for both halves of the adapter"
    ),
    "micro_batch_size": batch("gradient_accumulation_steps"),
    "gradient_accumulation_steps": accumulation("micro_batch_size", 1),
    "batch_size": needless("old; micro_batch_size and gradient_accumulation_steps count"),
    "num_epochs": epochs,
    "optimizer": choice("training.optimizer", OPTIMIZERS, OTHER_OPTIMIZER),
    "lr_scheduler": choice("training.lr_scheduler", SCHEDULES, OTHER_SCHEDULE),
    "bfloat16": half("bf16"),
    "float16": half("fp16"),
    "torch_dtype": fixed("auto", "the base keeps the number type of launch.precision"),
    "gradient_checkpointing": checkpointing,
    "saves_per_epoch": per_epoch("training.save_every"),
    "evals_per_epoch": per_epoch("training.evaluate_every"),
    "eval_steps": eval_steps,
    "use_wandb": tracker("wandb"),
    "wandb_project": tracker("wandb", "WANDB_PROJECT"),
    "use_tensorboard": tracker("tensorboard"),
    "use_mlflow": tracker("mlflow"),
    "mlflow_tracking_uri": tracker("mlflow", "MLFLOW_TRACKING_URI"),
    "mlflow_experiment_name": tracker("mlflow", "MLFLOW_EXPERIMENT_NAME"),
    "trackio_project_name": tracker("trackio"),
    "deepspeed": deepspeed,
    "fsdp": fsdp,
    **dict.fromkeys(
        ("liger_rms_norm", "liger_glu_activation", "liger_layer_norm", "liger_rope", "liger_rms_norm_gated"), liger
    ),
}


def axolotl_defaults(draft: Draft) -> None:
    """Of axolotl's schemas, where lft has others."""
    if draft.values.get("adapter") is None:
        draft.defaults.append("adapter: without it axolotl trains all weights; lft trains a LoRA adapter")
    values = {
        "lora.lora_dropout": 0.0,
        "training.num_epochs": 1,
        "training.batch_size": 1,
        "training.global_batch_size": draft.settings.get("training.batch_size", 1) * draft.ranks,
        "data.max_length": 512,
        "training.lr_scheduler": "cosine",
        "training.warmup_steps": 0.03,
        "training.gradient_checkpointing": False,
    }
    for setting, value in values.items():
        draft.default(setting, value, "axolotl's default")
