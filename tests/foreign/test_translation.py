"""Other projects' configurations: what they mean in lft, and that no key is dropped without a word."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lft.core.errors import SettingsError
from lft.core.run_file_text import Entry, nested, run_file_text
from lft.core.setting import is_setting
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings
from lft.foreign.document import ForeignFile
from lft.foreign.draft import Draft, translate_keys
from lft.foreign.projects import PROJECTS, translate

RANKS = 4
AXOLOTL = """\
base_model: someone/base-1b
load_in_4bit: true
strict: false
datasets:
  - path: ./rows.jsonl
    type: chat_template
    field_messages: talk
    roles_to_train: [assistant]
val_set_size: 0.1
output_dir: ./out
adapter: qlora
sequence_len: 1024
sample_packing: true
lora_r: 32
lora_alpha: 16
lora_target_linear: true
lora_mlp_kernel: true
wandb_project: mine
wandb_entity:
gradient_accumulation_steps: 4
micro_batch_size: 2
num_epochs: 2.0
optimizer: adamw_bnb_8bit
lr_scheduler: cosine
learning_rate: 2e-5
bf16: auto
tf32: true
flash_attention: true
gradient_checkpointing: true
warmup_ratio: 0.1
evals_per_epoch: 4
saves_per_epoch: 1
weight_decay: 0.01
deepspeed: deepspeed_configs/zero3_bf16.json
special_tokens: {pad_token: <|end|>}
early_stopping_patience: 3
a_key_of_tomorrow: 1
"""
LLAMAFACTORY = """\
### model
model_name_or_path: someone/base-1b
trust_remote_code: true
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 4
lora_target: q_proj, v_proj
loraplus_lr_ratio: 16.0
dataset: mine,also_mine
template: llama3
cutoff_len: 768
max_samples: 100
neat_packing: true
mask_history: true
preprocessing_num_workers: 16
output_dir: saves/mine
logging_steps: 5
save_strategy: epoch
save_total_limit: 2
report_to: wandb
swanlab_api_key: key-7f3a
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 1.5
lr_scheduler_type: constant_with_warmup
warmup_steps: 10
fp16: true
ddp_timeout: 180000000
val_size: 0.05
eval_strategy: steps
eval_steps: 50
push_to_hub: true
hub_model_id: me/mine
hub_token: hf_planted7f3a
use_galore: false
"""
TRL = """\
model_name_or_path: someone/base-1b
torch_dtype: bfloat16
dataset_mixture:
  datasets:
    - {id: someone/a, split: train_sft, weight: 0.5}
    - {id: someone/b, split: train_sft}
  test_split_size: 100
  seed: 0
use_peft: true
lora_r: 64
lora_target_modules: all-linear
assistant_only_loss: true
max_length: 2048
packing: true
packing_strategy: ffd
learning_rate: 2.0e-05
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {min_lr_rate: 0.1}
gradient_accumulation_steps: 2
gradient_checkpointing: true
gradient_checkpointing_kwargs: {use_reentrant: false}
max_steps: -1
per_device_train_batch_size: 4
save_strategy: "no"
load_best_model_at_end: true
seed: 7
use_liger_kernel: true
max_grad_norm: 0.2
"""
ACCELERATE = """\
compute_environment: LOCAL_MACHINE
debug: false
deepspeed_config:
  gradient_clipping: 0.5
  offload_optimizer_device: cpu
  zero3_init_flag: true
  zero_stage: 3
distributed_type: DEEPSPEED
downcast_bf16: 'no'
machine_rank: 0
main_process_ip: 10.0.0.1
mixed_precision: bf16
num_machines: 2
num_processes: 16
tpu_env: []
use_cpu: false
"""
DEEPSPEED = {
    "train_batch_size": "auto",
    "train_micro_batch_size_per_gpu": 2,
    "gradient_accumulation_steps": 8,
    "gradient_clipping": 1.0,
    "zero_optimization": {
        "stage": 2,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
        "overlap_comm": True,
        "reduce_bucket_size": 5e8,
    },
    "bf16": {"enabled": True},
    "fp16": {"enabled": "auto", "loss_scale": 0},
    "optimizer": {"type": "AdamW", "params": {"lr": 3e-5, "betas": [0.8, 0.999], "weight_decay": "auto"}},
    "wall_clock_breakdown": False,
}
FILES = {
    "axolotl": ("axolotl.yml", AXOLOTL),
    "LLaMA-Factory": ("llamafactory.yaml", LLAMAFACTORY),
    "TRL": ("trl.yaml", TRL),
    "accelerate": ("accelerate.yaml", ACCELERATE),
    "DeepSpeed": ("ds_config.json", json.dumps(DEEPSPEED, indent="\t")),
}
EXPECTED: dict[str, dict[str, Any]] = {
    "axolotl": {
        "model.name": "someone/base-1b",
        "data.source": "./rows.jsonl",
        "data.text_columns": ["talk"],
        "data.held_out": 0.1,
        "output_dir": "./out",
        "data.max_length": 1024,
        "data.packing": True,
        "lora.r": 32,
        "lora.lora_alpha": 16,
        "lora.lora_dropout": 0.0,
        "lora.target_modules": "all-linear",
        "training.batch_size": 2,
        "training.global_batch_size": 32,
        "training.num_epochs": 2,
        "training.optimizer": "adamw_8bit",
        "training.lr_scheduler": "cosine",
        "training.learning_rate": 2e-5,
        "training.gradient_checkpointing": True,
        "training.warmup_steps": 0.1,
        "training.evaluate_every": "epoch",
        "training.trackers": ["wandb"],
        "training.save_every": "epoch",
        "training.weight_decay": 0.01,
        "launch.strategy": "zero3",
    },
    "LLaMA-Factory": {
        "model.name": "someone/base-1b",
        "model.trust_remote_code": True,
        "lora.r": 4,
        "lora.lora_alpha": 8,
        "lora.lora_dropout": 0.0,
        "lora.target_modules": ["q_proj", "v_proj"],
        "data.max_length": 768,
        "data.num_samples": 100,
        "data.packing": True,
        "data.loss_on": "completion",
        "data.held_out": 0.05,
        "output_dir": "saves/mine",
        "training.log_every": 5,
        "training.save_every": "epoch",
        "training.keep_last": 2,
        "training.batch_size": 1,
        "training.global_batch_size": 32,
        "training.learning_rate": 1e-4,
        "training.num_epochs": 2,
        "training.lr_scheduler": "constant",
        "training.warmup_steps": 10,
        "training.evaluate_every": 50,
        "training.trackers": ["wandb"],
        "training.gradient_checkpointing": True,
        "launch.precision": "fp16",
        "upload.repo_name": "me/mine",
        "upload.create_new": True,
    },
    "TRL": {
        "model.name": "someone/base-1b",
        "launch.precision": "bf16",
        "data.source": [{"source": "someone/a", "weight": 0.5}, {"source": "someone/b", "weight": 1}],
        "data.split": "train_sft",
        "data.held_out": 100,
        "data.loss_on": "assistant",
        "data.max_length": 2048,
        "data.packing": True,
        "lora.r": 64,
        "lora.lora_dropout": 0.05,
        "lora.target_modules": "all-linear",
        "training.learning_rate": 2e-5,
        "training.batch_size": 4,
        "training.global_batch_size": 32,
        "training.gradient_checkpointing": True,
        "training.keep_best": True,
        "training.seed": 7,
        "training.liger": True,
        "training.max_grad_norm": 0.2,
    },
    "accelerate": {
        "training.max_grad_norm": 0.5,
        "launch.strategy": "zero3",
        "launch.precision": "bf16",
        "launch.nodes": 2,
        "launch.gpus": 8,
    },
    "DeepSpeed": {
        "training.batch_size": 2,
        "training.global_batch_size": 64,
        "training.max_grad_norm": 1.0,
        "training.learning_rate": 3e-5,
        "launch.strategy": "zero2",
        "launch.precision": "bf16",
    },
}
VARIANTS = {"model.quantization": "4bit", "lora.loraplus_lr_ratio": 16.0}
"""Settings that are translated where lft has them."""


def written(folder: Path, name: str, text: str) -> Path:
    """A file with this text."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def draft_of(folder: Path, text: str, name: str = "file.yaml") -> Draft:
    """Its translation for four ranks."""
    return translate(written(folder, name, text), RANKS)


def noted(draft: Draft) -> set[str]:
    """The keys that are in one of the three lists."""
    return {note.key for notes in (draft.translated, draft.needless, draft.missing) for note in notes}


def leaves(values: Any, around: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The innermost keys of sections."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*around, str(name)))
        else:
            yield (*around, str(name))


def dropped(values: dict[str, Any], keys: set[str]) -> list[str]:
    """Keys of which nothing is said, neither of themselves, nor of a section around, nor of all that is in them."""
    return [
        ".".join(leaf)
        for leaf in leaves(values)
        if not any(".".join(leaf[:length]) in keys for length in range(1, len(leaf) + 1))
        and not any(key.startswith(".".join(leaf) + ".") for key in keys)
    ]


@pytest.mark.parametrize("project", FILES)
def test_a_configuration_becomes_the_settings_that_mean_the_same(project: str, tmp_path: Path) -> None:
    name, text = FILES[project]
    draft = draft_of(tmp_path, text, name)
    assert draft.project == project
    found = {name: value for name, value in draft.settings.items() if name not in VARIANTS}
    assert found == EXPECTED[project]
    assert draft.settings.items() >= {(name, VARIANTS[name]) for name in VARIANTS.keys() & draft.settings.keys()}


@pytest.mark.parametrize("project", FILES)
def test_every_key_of_a_configuration_is_in_one_of_the_three_lists_with_its_line(project: str, tmp_path: Path) -> None:
    name, text = FILES[project]
    draft = draft_of(tmp_path, text, name)
    assert not dropped(draft.values, noted(draft))
    lines = text.splitlines()
    for note in [*draft.translated, *draft.needless, *draft.missing]:
        file, _, number = note.place.rpartition(":")
        last = note.key.split(".")[-1]
        assert file == name
        assert last in lines[int(number) - 1] or last.isdigit(), note


@pytest.mark.parametrize("project", ["axolotl", "LLaMA-Factory", "TRL"])
def test_the_run_file_made_of_a_configuration_is_read_back_as_its_settings(project: str, tmp_path: Path) -> None:
    written(tmp_path, "rows.jsonl", '{"text": "a"}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        draft = draft_of(tmp_path, FILES[project][1])
        found = {"data.source": "./rows.jsonl"} | draft.settings
        text = run_file_text({name: Entry(value, draft.sources.get(name, "")) for name, value in found.items()}, "head")
        read = read_settings(written(tmp_path, "run.yaml", text), {}, ())
        assert read == RunSettings.model_validate(nested(found))


def test_what_has_no_counterpart_says_what_is_different(tmp_path: Path) -> None:
    draft = draft_of(tmp_path, AXOLOTL, "axolotl.yml")
    missing = {note.key: str(note) for note in draft.missing}
    assert missing["early_stopping_patience"] == (
        "axolotl.yml:36  early_stopping_patience: the run does not stop early; training.keep_best keeps the best checkpoint"
    )
    assert missing["a_key_of_tomorrow"].startswith("axolotl.yml:37  a_key_of_tomorrow: lft does not know this key")
    assert missing.keys() - VARIANTS.keys() >= {"special_tokens"}
    assert "flash_attention" in {note.key for note in draft.needless}


@pytest.mark.parametrize(
    ("lines", "trackers", "elsewhere"),
    [
        ("wandb_project: mine\nuse_wandb: true\n", ["wandb"], None),
        ("wandb_project: mine\nuse_wandb: false\n", None, None),
        ("wandb_project: mine\nwandb_mode: disabled\n", None, None),
        ("wandb_project: ''\nuse_mlflow: true\nuse_tensorboard: true\n", ["mlflow", "tensorboard"], None),
        ("report_to: [wandb, comet_ml, tensorboard]\n", ["wandb", "tensorboard"], "no reports to comet_ml"),
        ("report_to: none\n", None, None),
        ("report_to: all\n", None, "no reports to all"),
    ],
)
def test_trackers_that_are_named_elsewhere_are_told_here(
    lines: str, trackers: list[str] | None, elsewhere: str | None, tmp_path: Path
) -> None:
    draft = draft_of(tmp_path, f"base_model: a/b\nsequence_len: 8\n{lines}", "axolotl.yml")
    assert draft.settings.get("training.trackers") == trackers
    assert (
        [elsewhere in note.text for note in draft.missing] == [True] * bool(elsewhere)
        if elsewhere
        else not draft.missing
    )


def test_the_address_of_a_tracker_is_not_shown_for_it_may_hold_a_password(tmp_path: Path) -> None:
    lines = "base_model: a/b\nsequence_len: 8\nmlflow_tracking_uri: https://me:hunter2@host\n"
    draft = draft_of(tmp_path, lines, "axolotl.yml")
    assert draft.settings["training.trackers"] == ["mlflow"]
    assert "its value goes into MLFLOW_TRACKING_URI of the environment" in str(draft.translated)
    assert "hunter2" not in str(draft)[str(draft).index("settings=") :]


def test_a_setting_that_lft_has_not_is_missing_and_one_that_it_has_is_translated(tmp_path: Path) -> None:
    draft = draft_of(tmp_path, "base_model: a/b\npeft_use_dora: true\n")
    if is_setting("lora.use_dora"):
        assert draft.settings["lora.use_dora"] is True
    else:
        assert "peft_use_dora" in {note.key for note in draft.missing}
    assert "peft_use_dora" in {
        note.key for note in draft_of(tmp_path, "base_model: a/b\npeft_use_dora: false\n").needless
    } or (is_setting("lora.use_dora"))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("base_model: a/b\n\nrl: dpo\n", "file.yaml:3  rl"),
        ("model_name_or_path: a/b\nstage: dpo\n", "file.yaml:2  stage"),
        ("model_name_or_path: a/b\ndataset_name: c/d\nbeta: 0.1\n", "file.yaml:3  beta"),
        ("base_model: a/b\nreward_model: true\n", "file.yaml:2  reward_model"),
    ],
)
def test_another_kind_of_training_is_refused_with_the_line_that_asks_for_it(
    text: str, place: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as caught:
        draft_of(tmp_path, text)
    assert place in caught.value.mistakes[0]
    assert "lft trains on examples" in caught.value.mistakes[0]


@pytest.mark.parametrize(
    ("name", "text", "mistake"),
    [
        ("a.yaml", "base_model: [a\nlora_r: 8\n", "a.yaml:2  is not YAML"),
        ("a.yaml", "base_model: a/b\n---\nbase_model: c/d\n", "a.yaml:3  a second document begins"),
        ("a.yaml", "", "a.yaml:1  keys with values are expected, and the file holds nothing"),
        ("a.yaml", "- a\n", "a.yaml:1  keys with values are expected, and the file is one list"),
        ("a.json", '{"zero_optimization":\n {"stage": }}', "a.json:2  is not JSON: Expecting value"),
        ("a.yaml", "epochs: 3\n", "is of no project that is known"),
        ("a.yaml", "model: {name: a/b}\ndata: {source: c/d}\n", "is a run file of lft already"),
    ],
)
def test_a_file_that_cannot_be_translated_says_why_and_where(
    name: str, text: str, mistake: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError) as caught:
        draft_of(tmp_path, text, name)
    assert mistake in caught.value.mistakes[0]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        translate(tmp_path / "none.yaml", RANKS)


def test_anchors_and_an_empty_second_document_are_read_as_yaml_has_them(tmp_path: Path) -> None:
    text = "---\nlora: &lora\n  lora_r: 4\n  lora_alpha: 8\nbase_model: a/b\n<<: *lora\nlora_alpha: 16\n---\n"
    draft = draft_of(tmp_path, text)
    assert (draft.settings["lora.r"], draft.settings["lora.lora_alpha"]) == (4, 16)
    assert not dropped(draft.values, noted(draft))


def test_of_a_key_that_stands_twice_the_last_counts_and_the_first_is_noted(tmp_path: Path) -> None:
    draft = draft_of(tmp_path, "base_model: a/b\nlora_r: 4\nlora_r: 8\n")
    assert draft.settings["lora.r"] == 8
    assert "file.yaml:2  lora_r: stands again further down, where it counts" in map(str, draft.needless)


def test_the_value_of_a_secret_is_never_shown(tmp_path: Path) -> None:
    draft = draft_of(tmp_path, LLAMAFACTORY)
    shown = "\n".join(map(str, [*draft.translated, *draft.needless, *draft.missing, *draft.defaults]))
    assert {"hub_token", "swanlab_api_key"} <= noted(draft)
    assert "7f3a" not in shown + repr(draft.settings)


def test_llamafactorys_data_sets_are_found_in_its_own_list(tmp_path: Path) -> None:
    known = {
        "mine": {"file_name": "mine.json", "columns": {"prompt": "ask", "response": "say"}},
        "also_mine": {"hf_hub_url": "someone/rows", "split": "test"},
    }
    written(tmp_path, "data/dataset_info.json", json.dumps(known))
    draft = draft_of(tmp_path, LLAMAFACTORY)
    assert draft.settings["data.source"] == [{"source": "./data/mine.json"}, {"source": "someone/rows"}]
    assert draft.settings["data.split"] == "test"
    alone = draft_of(tmp_path, LLAMAFACTORY.replace("mine,also_mine", "mine"))
    assert alone.settings["data.source"] == "./data/mine.json"
    assert alone.settings["data.text_columns"] == ["ask", "say"]
    lost = draft_of(tmp_path, LLAMAFACTORY.replace("also_mine", "lost"))
    assert any("which has no lost" in note.text for note in lost.missing)


def test_a_deepspeed_configuration_is_read_where_it_is_there_and_judged_by_its_name_where_not(tmp_path: Path) -> None:
    text = "base_model: a/b\ndeepspeed: ds/zero3.json\n"
    assert draft_of(tmp_path, text).settings["launch.strategy"] == "zero3"
    written(tmp_path, "ds/zero3.json", json.dumps(DEEPSPEED))
    draft = draft_of(tmp_path, text)
    assert draft.settings["launch.strategy"] == "zero2"
    assert any(note.place.startswith("zero3.json:") for note in draft.missing)
    unknown = draft_of(tmp_path, "base_model: a/b\ndeepspeed: fast.json\n")
    assert "launch.strategy" not in unknown.settings
    assert "deepspeed" in {note.key for note in unknown.missing}


def test_axolotls_own_prompts_become_templates_with_their_braces(tmp_path: Path) -> None:
    text = (
        "base_model: a/b\ndatasets:\n  - path: ./rows.jsonl\n    type:\n      field_instruction: q\n"
        "      field_output: a\n      format: 'JSON {like this}: {instruction}'\n"
    )
    draft = draft_of(tmp_path, text)
    assert draft.settings["data.prompt_template"] == "JSON {{like this}}: {q}"
    assert draft.settings["data.completion_template"] == "{a}"


def test_data_sets_that_lft_cannot_read_in_one_run_are_told(tmp_path: Path) -> None:
    text = (
        "base_model: a/b\ndatasets:\n- {path: a/b, type: alpaca, split: x}\n- {path: c/d, type: completion, split: y}\n"
    )
    draft = draft_of(tmp_path, text)
    missing = {note.key: note.text for note in draft.missing}
    assert "several types of rows" in missing["datasets"]
    assert missing["datasets.1.split"] == "data.split is one for all sources: x"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 10**6)
    | st.floats(allow_nan=True)
    | st.text(max_size=12)
    | st.just("auto"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("name", [project.name for project in PROJECTS])
@given(data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_whatever_a_known_key_holds_it_is_noted_and_nothing_breaks(name: str, data: st.DataObject) -> None:
    project = next(project for project in PROJECTS if project.name == name)
    keys = sorted({key.split(".")[0] for key in project.table})
    values = data.draw(st.dictionaries(st.sampled_from(keys), VALUES, min_size=1, max_size=6))
    sections = [key for key in project.table if "." in key and not key.endswith("*")]
    if sections:
        for key in data.draw(st.lists(st.sampled_from(sections), max_size=3)):
            *around, last = key.split(".")
            inner: Any = values
            for part in around:
                if not isinstance(inner.get(part), dict):
                    inner[part] = {}
                inner = inner[part]
            inner[last] = data.draw(VALUES)
    draft = Draft(project.name, ForeignFile(Path("file.yaml"), values, {}), RANKS)
    translate_keys(draft, project.table, values)
    project.finish(draft)
    refused = {note.key for note in draft.refused}
    assert not dropped(values, noted(draft) | refused)
    given_settings = {"model.name": "a/b", "data.source": "c/d"} | draft.settings
    RunSettings.model_validate(nested(given_settings))
    assert yaml.safe_load(run_file_text({name: Entry(value) for name, value in given_settings.items()}, "")) == nested(
        given_settings
    )
