"""LLaMA-Factory's configuration (as of August 2026); its data sets are named in a file of their own, dataset_info.json."""

from typing import Any

from lft.foreign.axolotl import quantized
from lft.foreign.axolotl_data import set_sources
from lft.foreign.deepspeed import deepspeed
from lft.foreign.draft import AS_IN_LFT, Draft, Rule, all_of, missing, needless, refused, to
from lft.foreign.fsdp import TRAINER_FSDP
from lft.foreign.trainer_arguments import OWN_KERNELS, OWN_LOADING, TRAINER
from lft.foreign.values import count_or_share, flag, is_off, names, number, text, whole

RECOGNISED_BY = {"stage", "finetuning_type", "template", "lora_rank", "lora_target", "dataset_dir", "neat_packing"}


def stage(draft: Draft, value: Any) -> None:
    """Supervised, plain text, or another training."""
    word = str(value).lower()
    if word == "sft":
        draft.drop("lft trains on examples")
    elif word == "pt":
        draft.drop("rows with a text alone are trained whole")
    else:
        draft.refuse("lft trains on examples; this trains by preferences or rewards")


def method(draft: Draft, value: Any) -> None:
    """LoRA, or all weights, or some."""
    if str(value).lower() == "lora":
        draft.drop("lft trains LoRA")
    else:
        draft.lack("lft trains a LoRA adapter")


def targets(draft: Draft, value: Any) -> None:
    """Names with commas, or all."""
    found = names(value)
    draft.set("lora.target_modules", "all-linear" if found == ["all"] else found)


def datasets(draft: Draft, value: Any) -> None:
    """Names of dataset_info.json, which says what they are."""
    folder = text(draft.values.get("dataset_dir") or "data")
    known = draft.find(f"{folder}/dataset_info.json")
    sources: list[dict[str, Any]] = []
    for name in names(value):
        entry = known.values.get(name) if known else None
        if isinstance(entry, dict):
            source = _source(draft, entry, folder)
            sources += [{"source": source}] if source else []
        else:
            where = f"which has no {name}" if known else "which is not here"
            draft.lack(f"{name} is a name of {folder}/dataset_info.json, {where}; name the data by --dataset FILE")
    if sources:
        set_sources(draft, sources)


def _source(draft: Draft, entry: dict[str, Any], folder: str) -> str:
    """A data set as dataset_info.json describes it."""
    for key, setting in (("subset", "data.config"), ("split", "data.split")):
        if entry.get(key):
            draft.set(setting, text(entry[key]), "from dataset_info.json")
    if entry.get("ranking"):
        draft.refuse("a data set of preferences; lft trains on examples")
    columns = entry.get("columns")
    if isinstance(columns, dict) and len(names(draft.values.get("dataset"))) == 1:
        asked = [columns.get(key) for key in ("messages", "prompt", "query", "response")]
        draft.set("data.text_columns", [text(each) for each in asked if each], "from dataset_info.json")
    if entry.get("hf_hub_url"):
        return text(entry["hf_hub_url"])
    if entry.get("file_name"):
        return f"./{folder}/{entry['file_name']}".replace("././", "./").replace(".//", "/")
    draft.lack("dataset_info.json names neither a file nor a Hub data set: --dataset FILE")
    return ""


def template(draft: Draft, value: Any) -> None:
    """One of LLaMA-Factory's own."""
    draft.lack(
        f"LLaMA-Factory's own template {text(value)}; lft uses the tokenizer's chat template, which Instruct models bring along"
    )


def packing(draft: Draft, value: Any) -> None:
    """Rows of a pack never see each other in lft."""
    if "data.packing" in draft.settings:
        draft.agree("data.packing", "")
    elif flag(value) or draft.key != ("neat_packing",):
        draft.set("data.packing", flag(value), "rows of a pack do not see each other" if flag(value) else "")
    else:
        draft.drop("rows of a pack do not see each other in lft, either way")


def turns(draft: Draft, value: Any) -> None:
    """Only the last answer."""
    draft.set("data.loss_on", "completion") if flag(value) else draft.drop("every turn of the assistant is trained")


def prompts(draft: Draft, value: Any) -> None:
    """Prompts are trained, too."""
    draft.set("data.loss_on", "all") if flag(value) else draft.drop("answers alone are trained")


def no_checkpointing(draft: Draft, value: Any) -> None:
    """The other way round."""
    draft.set("training.gradient_checkpointing", not flag(value))


def bits(draft: Draft, value: Any) -> None:
    """Of the base model."""
    quantized(f"{whole(value)}bit")(draft, value)


def revision(draft: Draft, value: Any) -> None:
    """Main is the default."""
    draft.drop(AS_IN_LFT) if value == "main" else draft.set("model.revision", text(value))


def pissa(draft: Draft, value: Any) -> None:
    """How the adapter begins."""
    if is_off(value):
        draft.drop(AS_IN_LFT)
    else:
        steps = draft.values.get("pissa_iter", 16)
        to("lora.init_lora_weights", lambda _: f"pissa_niter_{steps}", without="the adapter starts as LoRA does")(
            draft, value
        )


NEEDLESS = {
    OWN_KERNELS: "flash_attn use_unsloth use_unsloth_gc shift_attn upcast_layernorm upcast_lmhead_output use_v1_kernels"
    " use_reentrant_gc block_diag_attn bias_activation_fusion apply_rope_fusion recompute_granularity",
    OWN_LOADING: "preprocessing_num_workers preprocessing_batch_size buffer_size data_shared_file_system overwrite_cache",
    "tokens are kept in lft's cache, named by content": "tokenized_path cache_dir",
    "lft loads straight to the device": "low_cpu_mem_usage device_map offload_folder infer_backend infer_dtype"
    " use_kv_cache"
    " compute_dtype quantization_device_map",
    "the model's own files say which tokenizer to use": "use_fast_tokenizer model_max_length",
    "lft uploads the adapter": "export_dir export_size export_device export_legacy_format export_hub_model_id"
    " export_quantization_bit export_quantization_dataset export_quantization_nsamples export_quantization_maxlen",
    "the token comes from `hf auth login` or HF_TOKEN": "hf_hub_token ms_hub_token om_hub_token",
    "lft starts its ranks itself": "ray_num_workers ray_init_kwargs ray_run_name ray_storage_path"
    " resources_per_worker placement_strategy"
    " master_addr master_port",
    "lft benchmark compares base and tuned model on held-out rows": "predict_with_generate compute_accuracy"
    " eval_on_each_dataset"
    " eval_num_beams max_new_tokens temperature top_p top_k do_sample num_beams repetition_penalty",
    "padding is never trained": "ignore_pad_token_for_loss",
    "lft says this by itself": "print_param_status include_effective_tokens_per_second enable_torch_profiler",
    "a new adapter is made": "create_new_adapter",
    "needed for what lft does not do": "pissa_iter pissa_convert quantization_method quantization_type"
    " loraplus_lr_embedding",
    "where the data sets are": "dataset_dir media_dir",
    "texts only": "image_max_pixels image_min_pixels video_max_pixels video_min_pixels video_fps video_maxlen"
    " freeze_vision_tower freeze_multi_modal_projector freeze_language_model audio_sampling_rate use_audio_in_video",
}
MISSING = {
    "held-out rows come from the training data: data.held_out": "eval_dataset",
    "sources are joined, and each row is used as often as its weight says": "mix_strategy interleave_probs",
    "rows are shuffled by training.seed": "disable_shuffling",
    "tools are written by the chat template": "tool_format",
    "no system text is added to rows that have none": "default_system",
    "the chat template gets its own default arguments": "enable_thinking preserve_thinking",
    "lft starts a new adapter; it goes on only with runs of its own": "adapter_name_or_path adapter_folder",
    "the vocabulary stays as it is": "resize_vocab add_tokens add_special_tokens new_special_tokens_config"
    " split_special_tokens",
    "the model as it was published": "rope_scaling mixture_of_depths moe_aux_loss_coef train_from_scratch"
    " use_llama_pro",
    "quantized once, as nf4": "double_quantization",
    "trained with AdamW": "use_galore use_apollo use_badam use_adam_mini use_muon",
    "another loss than cross entropy": "use_dft_loss use_asft_loss asft_alpha use_eaft_loss eaft_alpha",
    "no reports there; training.trackers can name tensorboard, wandb, trackio, mlflow": "use_swanlab swanlab_project"
    " swanlab_workspace swanlab_run_name swanlab_mode swanlab_api_key swanlab_logdir",
    "the run does not stop early; training.keep_best keeps the best checkpoint": "early_stopping_steps",
    "computes in 16 or 32 bits": "fp8 fp8_backend fp8_enable_fsdp_float8_all_gather",
    "the adapter is trained as float32": "pure_bf16",
    "lft starts its ranks itself, on NVIDIA GPUs or CPUs": "use_kt kt_config kt_cpu_activation kt_weight_path"
    " kt_non_expert_weight_path use_mca use_megatron_bridge use_hyper_parallel"
    " tensor_model_parallel_size pipeline_model_parallel_size expert_model_parallel_size context_parallel_size"
    " sequence_parallel"
    " use_distributed_optimizer overlap_param_gather overlap_grad_reduce moe_grouped_gemm moe_token_dispatcher_type",
    "the part of another method": "galore_layerwise galore_target galore_rank galore_scale apollo_layerwise"
    " apollo_target apollo_rank"
    " apollo_scale apollo_scale_type badam_mode badam_switch_mode badam_switch_interval badam_verbose"
    " freeze_trainable_layers"
    " freeze_trainable_modules freeze_extra_modules oft_block_size oft_target oft_rank module_dropout",
}
LLAMAFACTORY: dict[str, Rule] = {
    **TRAINER,
    **TRAINER_FSDP,
    **all_of(needless, NEEDLESS),
    **all_of(missing, MISSING),
    "deepspeed": deepspeed,
    "stage": stage,
    "finetuning_type": method,
    "reward_model": refused("lft trains on examples"),
    "ref_model": refused("lft trains on examples"),
    "pref_beta": refused("lft trains on examples; this trains by preferences"),
    "pref_loss": refused("lft trains on examples; this trains by preferences"),
    "model_name_or_path": to("model.name"),
    "model_revision": revision,
    "trust_remote_code": to("model.trust_remote_code", flag),
    "quantization_bit": bits,
    "dataset": datasets,
    "template": template,
    "cutoff_len": to("data.max_length", whole),
    "max_samples": to("data.num_samples", whole, "of all sources together; there of each"),
    "streaming": to("data.streaming", flag),
    "val_size": to("data.held_out", count_or_share),
    "packing": packing,
    "neat_packing": packing,
    "train_on_prompt": prompts,
    "mask_history": turns,
    "lora_rank": to("lora.r", whole),
    "lora_alpha": to("lora.lora_alpha", whole),
    "lora_dropout": to("lora.lora_dropout", number),
    "lora_target": targets,
    "additional_target": to("lora.modules_to_save", names, without="only the adapter is trained and saved"),
    "use_rslora": to("lora.use_rslora", flag, without="the update is scaled by alpha / r, not by alpha / sqrt(r)"),
    "use_dora": to("lora.use_dora", flag, without="plain LoRA, without DoRA's magnitudes"),
    "pissa_init": pissa,
    "loraplus_lr_ratio": to(
        "lora.loraplus_lr_ratio", number, without="one learning rate for both halves of the adapter"
    ),
    "enable_liger_kernel": to("training.liger", flag),
    "disable_gradient_checkpointing": no_checkpointing,
}


def llamafactory_defaults(draft: Draft) -> None:
    """Of LLaMA-Factory's arguments and the Trainer's, where lft has others."""
    rank = draft.settings.get("lora.r", 8)
    rows = draft.settings.get("training.batch_size", 8)
    values = {
        "lora.lora_alpha": 2 * rank,
        "lora.lora_dropout": 0.0,
        "lora.target_modules": "all-linear",
        "data.max_length": 2048,
        "training.learning_rate": 5e-5,
        "training.batch_size": 8,
        "training.global_batch_size": rows * draft.ranks,
        "training.gradient_checkpointing": True,
    }
    for setting, value in values.items():
        draft.default(setting, value, "LLaMA-Factory's default")
