"""TRL's configuration of SFT (`trl sft --config`, as of July 2026), whose form the alignment handbook's recipes share."""

from typing import Any

from lft.foreign.axolotl import quantized
from lft.foreign.axolotl_data import set_sources
from lft.foreign.deepspeed import deepspeed
from lft.foreign.draft import AS_IN_LFT, Draft, Rule, all_of, missing, needless, refused, to
from lft.foreign.fsdp import TRAINER_FSDP
from lft.foreign.trainer_arguments import OWN_KERNELS, OWN_LOADING, TRAINER
from lft.foreign.values import count_or_share, flag, is_off, names, number, text, whole

RECOGNISED_BY = {
    "model_name_or_path",
    "dataset_name",
    "dataset_mixture",
    "use_peft",
    "max_length",
    "max_seq_length",
    "dataset_mixer",
}
TYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
PREFERENCES = "lft trains on examples; this trains by preferences or rewards"


def number_type(draft: Draft, value: Any) -> None:
    """Of the base model."""
    word = str(value).removeprefix("torch.")
    if word in TYPES:
        draft.set("launch.precision", TYPES[word])
    else:
        draft.drop("lft chooses the number type by checkpoint and device")


def mixture(draft: Draft, value: Any) -> None:
    """Several data sets, each with a weight."""
    key, sources, splits = draft.key, [], set()
    listed = value.get("datasets", []) if isinstance(value, dict) else value
    inside = (*key, "datasets") if isinstance(value, dict) else key
    for place, each in enumerate(listed):
        splits.add((each.get("config") or each.get("name"), each.get("split", "train")))
        weight = number(1 if each.get("weight") is None else each["weight"])
        sources.append({"source": text(each.get("id") or each.get("path")), "weight": weight})
        for name, given in each.items():
            draft.key = (*inside, str(place), str(name))
            _of_source(draft, str(name), given)
    _one_split(draft, inside, splits)
    for name, given in value.items() if isinstance(value, dict) else ():
        draft.key = (*key, str(name))
        if name == "test_split_size":
            draft.set("data.held_out", count_or_share(given))
        elif name == "seed":
            draft.drop("which rows are held out follows from their content")
    draft.key = key
    set_sources(draft, sources)


def _of_source(draft: Draft, name: str, given: Any) -> None:
    if name in ("id", "path"):
        draft.agree("data.source", text(given))
    elif name == "weight":
        draft.agree("data.source", f"weight {given}")
    elif name in ("config", "name", "split"):
        draft.agree("data.split" if name == "split" else "data.config", text(given))
    elif name == "columns":
        draft.drop("recognised by their names")
    else:
        draft.lack("one for all sources: data.data_files")


def _one_split(draft: Draft, inside: tuple[str, ...], splits: set[tuple[Any, Any]]) -> None:
    """Lft has one configuration and one split for all sources."""
    draft.key = inside
    if len(splits) > 1:
        draft.lack("data.config and data.split are one for all sources; name files of your own, made of those splits")
    for config, split in list(splits)[:1] if len(splits) == 1 else ():
        if config not in (None, "default"):
            draft.set("data.config", text(config))
        if split != "train":
            draft.set("data.split", text(split))


def mixer(draft: Draft, value: Any) -> None:
    """Data sets with their shares, as older recipes have them."""
    set_sources(draft, [{"source": text(name), "weight": number(share)} for name, share in value.items()])


def splits(draft: Draft, value: Any) -> None:
    """The one to train on, and others."""
    training = [name for name in names(value) if name.startswith("train")]
    if training:
        draft.set("data.split", training[0])
    else:
        draft.lack("data.split stays train")


def text_field(draft: Draft, value: Any) -> None:
    """Counts for rows of plain text only."""
    if value == "text":
        draft.drop("recognised by its name")
    else:
        draft.set("data.text_columns", [text(value)])


def completion_only(draft: Draft, value: Any) -> None:
    """The last answer, or all."""
    draft.set("data.loss_on", "completion" if flag(value) else "all")


def assistant_only(draft: Draft, value: Any) -> None:
    """The assistant's turns; without it TRL trains all of a conversation."""
    draft.set("data.loss_on", "assistant" if flag(value) else "all")


def loss(draft: Draft, value: Any) -> None:
    """SFT's, or that of preferences."""
    if str(value) in ("nll", "chunked_nll"):
        draft.drop(OWN_KERNELS)
    elif str(value) == "dft":
        draft.lack("cross entropy")
    else:
        draft.refuse(PREFERENCES)


def targets(draft: Draft, value: Any) -> None:
    """Names, or all linear layers."""
    found = names(value)
    draft.set("lora.target_modules", "all-linear" if found == ["all-linear"] else found)


def revision(draft: Draft, value: Any) -> None:
    """Main is the default."""
    draft.drop(AS_IN_LFT) if value == "main" else draft.set("model.revision", text(value))


def use_peft(draft: Draft, value: Any) -> None:
    """LoRA, or all weights."""
    draft.drop("lft trains LoRA") if flag(value) else draft.lack("trains all weights; lft trains a LoRA adapter")


def truncation(draft: Draft, value: Any) -> None:
    """Which end is cut."""
    draft.drop("lft keeps the start") if value == "keep_start" else draft.lack("lft cuts rows at the end")


NEEDLESS = {
    OWN_KERNELS: "attn_implementation padding_free packing_strategy eval_packing pad_to_multiple_of activation_offloading",
    OWN_LOADING: "dataset_num_proc dataset_kwargs",
    "LoRA is for causal language models": "lora_task_type",
    "no step before the first one": "ignore_bias_buffers shuffle_dataset",
    "the chat template says where a row ends": "eos_token pad_token",
    "4-bit weights as nf4": "bnb_4bit_quant_type bnb_4bit_quant_storage use_bnb_nested_quant bnb_4bit_compute_dtype",
}
MISSING = {
    "held-out rows come from the training data: data.held_out": "dataset_test_split",
    "the model's own configuration is used": "model_init_kwargs",
    "mixtures of experts are trained as transformers has them": "router_aux_loss_coef",
    "lft trains the adapter alone": "lora_target_parameters",
    "set it in the shell: NAME=VALUE lft launch ...": "env",
}
TRL: dict[str, Rule] = {
    **TRAINER,
    **TRAINER_FSDP,
    **all_of(needless, NEEDLESS),
    **all_of(missing, MISSING),
    "deepspeed": deepspeed,
    **all_of(
        refused, {PREFERENCES: "beta max_prompt_length max_completion_length num_generations reward_funcs ref_model"}
    ),
    "model_name_or_path": to("model.name"),
    "model_revision": revision,
    "trust_remote_code": to("model.trust_remote_code", flag),
    "dtype": number_type,
    "torch_dtype": number_type,
    "load_in_4bit": quantized("4bit"),
    "load_in_8bit": quantized("8bit"),
    "dataset_name": to("data.source"),
    "dataset_config": to("data.config"),
    "dataset_train_split": to("data.split"),
    "dataset_streaming": to("data.streaming", flag),
    "streaming": to("data.streaming", flag),
    "dataset_mixture": mixture,
    "datasets": mixture,
    "dataset_mixer": mixer,
    "dataset_splits": splits,
    "test_split_size": to("data.held_out", count_or_share),
    "dataset_text_field": text_field,
    "chat_template": to("data.chat_template"),
    "chat_template_path": to("data.chat_template"),
    "max_length": to("data.max_length", whole),
    "max_seq_length": to("data.max_length", whole),
    "truncation_mode": truncation,
    "packing": to("data.packing", flag),
    "completion_only_loss": completion_only,
    "assistant_only_loss": assistant_only,
    "loss_type": loss,
    "use_peft": use_peft,
    "lora_r": to("lora.r", whole),
    "lora_alpha": to("lora.lora_alpha", whole),
    "lora_dropout": to("lora.lora_dropout", number),
    "lora_target_modules": targets,
    "lora_modules_to_save": to("lora.modules_to_save", names, without="only the adapter is trained and saved"),
    "use_rslora": to("lora.use_rslora", flag, without="the update is scaled by alpha / r, not by alpha / sqrt(r)"),
    "use_dora": to("lora.use_dora", flag, without="plain LoRA, without DoRA's magnitudes"),
}


def trl_defaults(draft: Draft) -> None:
    """Of TRL's SFTConfig and ModelConfig, where lft has others."""
    if is_off(draft.values.get("use_peft")):
        draft.defaults.append("use_peft: without it TRL trains all weights; lft trains a LoRA adapter")
    if "data.loss_on" not in draft.settings:
        draft.defaults.append(
            "data.loss_on: TRL trains conversations whole unless assistant_only_loss is set; lft trains the"
            " assistant's turns"
        )
    values = {
        "lora.r": 16,
        "lora.lora_dropout": 0.05,
        "data.max_length": 1024,
        "training.learning_rate": 2e-5,
        "training.batch_size": 8,
        "training.global_batch_size": draft.settings.get("training.batch_size", 8) * draft.ranks,
        "training.gradient_checkpointing": True,
    }
    for setting, value in values.items():
        draft.default(setting, value, "TRL's default")
