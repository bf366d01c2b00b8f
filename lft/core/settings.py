"""The settings of a run: typed, frozen, every field documented where it stands.

`lft schema` prints them as a JSON Schema. Names are those of the documented API and of peft where they have one.
Reading them from a run file and flags, with the place of each mistake, is `settings_file.py`.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from lft.core.local_metric import MetricName
from lft.core.lora_start import Quantization, Start
from lft.core.section import Count, CountOrZero, Every, Name, NoBool, NotNegative, Section, Share, absolute
from lft.core.slurm_settings import SlurmSettings
from lft.core.trackers import Tracker

Precision = Literal["fp32", "fp16", "bf16"]
Strategy = Literal["single", "ddp", "zero2", "zero3", "fsdp", "device-map"]


class ModelSettings(Section):
    """The base model."""

    name: Name
    """Hub id, local folder, or .gguf file (turned once into a trainable model, which is kept in the cache)."""

    revision: str | None = None
    """Branch, tag or commit of a Hub model."""

    trust_remote_code: bool = False
    """Run model code that comes with the weights. Only for publishers you trust."""

    quantization: Quantization = "none"
    """Keep the frozen weights in 4 bits (NF4, as QLoRA does) or 8 bits, by bitsandbytes; loading quantizes them."""


class WeightedSource(Section):
    """One of several sources."""

    source: Name
    """As data.source."""

    weight: Annotated[float, Field(gt=0), NoBool] = 1.0
    """How often an epoch uses each of its rows: 2 is twice, 0.5 uses half of them."""


class DataSettings(Section):
    """The data and how its rows become tokens."""

    source: Name | Annotated[tuple[WeightedSource, ...], Field(min_length=1)]
    """Local file (.json .jsonl .csv .txt .parquet .arrow, each also .gz), folder, glob, Hub data set, or a list of them."""

    config: str | None = None
    """Configuration of a Hub data set."""

    split: str = "train"
    """Split of a Hub data set."""

    data_files: str | None = None
    """Files to load out of a Hub data set's repository."""

    revision: str | None = None
    """Branch, tag or commit of a Hub data set."""

    streaming: bool = False
    """Read only as many rows of a Hub data set as training.max_steps can use, without loading the rest."""

    num_samples: Count | None = None
    """Use only the first rows."""

    text_columns: tuple[str, ...] | None = None
    """Columns to use; recognised by their names when not given."""

    prompt_template: str | None = None
    """Text of the prompt with columns in braces, for example "{title}: {question}"."""

    completion_template: str | None = None
    """Text of the answer with columns in braces; with it alone, rows are plain text."""

    chat_template: str | None = None
    """Jinja template, or the file that holds one, to use in place of the tokenizer's."""

    max_length: Annotated[int, Field(ge=2), NoBool] = 512
    """Longest row, in tokens; longer rows are cut at the end."""

    loss_on: Literal["auto", "completion", "assistant", "all"] = "auto"
    """What is trained: the last answer, every assistant turn, or all; auto: every assistant turn. Plain text always whole."""

    packing: bool = False
    """Put several rows into one sequence of max_length tokens; they do not see each other."""

    on_bad_row: Literal["error", "skip"] = "error"
    """What to do with a row that cannot be read: stop before training, or leave it out and list it."""

    held_out: Share | CountOrZero = 0.05
    """Share of rows (below 1) or number of rows kept out of training, for held-out loss and ROUGE."""

    @property
    def sources(self) -> tuple[WeightedSource, ...]:
        """All sources; one alone has the weight 1."""
        return (WeightedSource(source=self.source),) if isinstance(self.source, str) else self.source

    @property
    def source_names(self) -> list[str]:
        """What all sources are called."""
        return [each.source for each in self.sources]


class LoraSettings(Section):
    """The adapter."""

    r: Annotated[int, Field(ge=1, le=1024), NoBool] = 8
    """Rank of the update."""

    lora_alpha: Count = 32
    """Scale: the update is multiplied by lora_alpha / r."""

    lora_dropout: Share = 0.1
    """Dropout before the adapter."""

    target_modules: Literal["auto", "all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "auto"
    """Layers to adapt, by the end of their names; auto knows the model families."""

    layers_to_transform: Annotated[tuple[CountOrZero, ...], Field(min_length=1)] | None = None
    """Adapt only the blocks with these numbers, from 0; all of them by default."""

    modules_to_save: tuple[str, ...] = ()
    """Modules to train whole, by the end of their names, for example lm_head; the adapter's folder holds them."""

    use_rslora: bool = False
    """Multiply the update by lora_alpha / sqrt(r) instead: rsLoRA, for ranks of 32 and more."""

    use_dora: bool = False
    """Train the length of each weight column apart from its direction: DoRA, better at small ranks, slower."""

    init_lora_weights: Start = True
    """First values: true for those of LoRA; gaussian, orthogonal, olora, pissa, or pissa_niter_N, its quick kind."""

    loraplus_lr_ratio: Annotated[float, Field(ge=1), NoBool] | None = None
    """Times the learning rate at which the B matrices learn: LoRA+; 16 is usual, with a smaller learning rate."""


class TrainingSettings(Section):
    """The training loop. A step is one update of the weights."""

    num_epochs: Count = 3
    """Passes over the training rows."""

    max_steps: Count | None = None
    """Stop after this many steps, whatever num_epochs says."""

    batch_size: Count = 4
    """Micro-batch: rows per device at a time."""

    global_batch_size: Count | None = None
    """Rows per step over all ranks; accumulation is derived. Default: batch_size x 4 x ranks asked for."""

    learning_rate: Annotated[float, Field(gt=0, lt=1), NoBool] = 2e-4
    """Largest learning rate of AdamW."""

    lr_scheduler: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""

    warmup_steps: Share | CountOrZero = 0
    """Steps over which the learning rate rises from 0; below 1, that share of all steps."""

    weight_decay: NotNegative = 0.0
    """Weight decay of AdamW."""

    max_grad_norm: NotNegative = 1.0
    """Gradients are clipped to this norm; 0 leaves them alone."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1), NoBool] = 42
    """Seed of the order of rows, of the adapter's first values and of dropout."""

    save_every: Every = "10min"
    """When to save a checkpoint: after a time, after so many steps, or after each epoch; and after the last step."""

    keep_last: Count = 3
    """Checkpoints to keep, the newest; older ones are removed once a new one is written."""

    evaluate_every: Every | None = None
    """When to measure the loss of the held-out rows: as save_every. Not at all by default."""

    keep_best: bool = False
    """Also keep the checkpoint with the lowest held-out loss; needs evaluate_every."""

    gradient_checkpointing: Literal["auto"] | bool = "auto"
    """Compute each layer's activations once more instead of keeping them; auto: where the run does not fit without."""

    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """AdamW; with its moments in 8 bits; and with those in memory that moves to the CPU when a GPU is full."""

    liger: bool = False
    """Compute norms, rotary positions and gated activations with Liger's kernels; on NVIDIA and AMD GPUs."""

    label_smoothing: Share = 0.0
    """Share of the wanted probability that is spread over all tokens; 0 wants the trained token alone."""

    group_by_length: bool = True
    """Put rows of similar length into the same step, to pad less; without packing."""

    log_every: Count = 10
    """Steps between two logged losses."""

    trackers: tuple[Tracker, ...] = ()
    """What else is told the losses: tensorboard (files in run/tensorboard), wandb, trackio or mlflow. Nothing by default."""


class BenchmarkSettings(Section):
    """Base against tuned model on the held-out rows, after training."""

    num_prompts: CountOrZero = 200
    """Held-out prompts to answer, at most; 0 leaves the benchmark out."""

    max_new_tokens: Count = 128
    """Longest answer, in tokens."""

    batch_size: Count = 32
    """Prompts answered at a time on each device."""

    metrics: tuple[MetricName, ...] = ("rouge",)
    """`rouge`, and paths of metrics of the `evaluate` kind: a script, or a folder that holds one of the same name."""


class UploadSettings(Section):
    """Upload to the Hugging Face Hub. There is no token here: it comes from a file, from HF_TOKEN or from `hf auth login`."""

    repo_name: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None
    """username/repository; nothing is uploaded without it."""

    create_new: bool = False
    """Create the repository if it does not exist."""

    private: bool = False
    """Make a created repository private; an existing public one is then refused."""

    revision: Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)*$")] | None = None
    """Branch to upload to; main by default, and created from it where it does not exist."""

    commit_message: Annotated[str, Field(min_length=1)] = "Upload LoRA adapter"
    """Message of the commit; lines after the first are its description."""

    token_file: Annotated[Path, AfterValidator(absolute)] | None = None
    """File that holds the token alone; without it, HF_TOKEN or the token of `hf auth login` is used."""

    @property
    def page(self) -> str:
        """Where the Hub shows what was uploaded, below its address."""
        branch = self.revision if self.revision != "main" else None
        return f"{self.repo_name}/tree/{branch.replace('/', '%2F')}" if branch else str(self.repo_name)


class LaunchSettings(Section):
    """Where the run happens."""

    nodes: Count = 1
    """Machines of the run."""

    gpus: Literal["auto"] | CountOrZero = "auto"
    """GPUs per node; auto takes all that are visible, 0 none."""

    cpu_procs: Literal["auto"] | Count = "auto"
    """Ranks per node when there is no GPU; auto takes two where there are two cores."""

    strategy: Literal["auto"] | Strategy = "auto"
    """How ranks share the work; auto takes the cheapest that fits the predicted memory."""

    precision: Literal["auto"] | Precision = "auto"
    """Number type of the frozen base model."""

    strict: Literal["auto"] | bool = "auto"
    """Make it an error, not a smaller run, when there are fewer GPUs than asked for; auto does so inside a SLURM job."""

    restarts: CountOrZero = 0
    """How often the run is started again from its last checkpoint after a failure that may pass."""

    hang_timeout_seconds: Literal["auto"] | Annotated[float, Field(gt=0), NoBool] = "auto"
    """Once steps are made: no progress of any rank for so long is a hang; auto: 20 times the slowest step, at least 120."""

    join_timeout_seconds: Annotated[float, Field(gt=0), NoBool] = 600.0
    """How long ranks wait for each other before they train."""

    grace_seconds: Annotated[float, Field(gt=0), NoBool] = 30.0
    """How long ranks may take to save and leave when asked to stop, before they are killed."""


class RunSettings(Section):
    """Everything a run is asked to do. Only model.name and data.source have no default."""

    model: ModelSettings
    data: DataSettings
    lora: LoraSettings = LoraSettings()
    training: TrainingSettings = TrainingSettings()
    benchmark: BenchmarkSettings = BenchmarkSettings()
    upload: UploadSettings = UploadSettings()
    launch: LaunchSettings = LaunchSettings()
    slurm: SlurmSettings = SlurmSettings()

    sweep: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Setting -> list of its values; lft sweep makes a run of every combination."""

    output_dir: Annotated[Path, AfterValidator(absolute), Field(validate_default=True)] = Path("finetuned_model")
    """Folder of the adapter; run/ in it holds plan, logs and report."""

    def by_name(self) -> dict[str, Any]:
        """The settings of all sections by their dotted names, as JSON has them."""
        return {
            f"{section}.{name}": value
            for section, content in self
            if isinstance(content, Section)
            for name, value in content.model_dump(mode="json").items()
        }

    @property
    def has_benchmark(self) -> bool:
        """Whether there are rows to compare base and tuned model on, and it is asked for."""
        return self.data.held_out > 0 and self.benchmark.num_prompts > 0
