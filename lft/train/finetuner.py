"""LLMFineTuner: the pipeline as a library, one method per stage. The worker calls the same methods."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed

from lft.core.console import say
from lft.core.errors import CallOrderError, DataError
from lft.core.lora_start import Quantization
from lft.core.rank import Rank
from lft.core.settings import (
    DataSettings,
    LoraSettings,
    Precision,
    RunSettings,
    Strategy,
    TrainingSettings,
    UploadSettings,
)
from lft.data.cache import usable_cache
from lft.data.example import Style
from lft.data.formats import text_columns
from lft.data.load import load_rows
from lft.data.prepare import Work, prepare, prepare_in_memory
from lft.data.prepared import Prepared, audit_prepared
from lft.data.token_rows import TokenRows
from lft.data.writing import usual_style
from lft.publish.upload import upload_adapter
from lft.train.adapter import gather_adapter, load_adapter, save_adapter, saved_style
from lft.train.engine import make_engine
from lft.train.generation import answer_all, prompt_tokens
from lft.train.lora import LoraOptions, apply_lora, target_modules
from lft.train.lora_start import unchanged_base
from lft.train.make_trainer import Meanwhile, StrategyOrder, make_trainer, run_arguments
from lft.train.memory import translating_out_of_memory
from lft.train.model import (
    base_precision,
    device_map,
    find_device,
    load_base_model,
    load_tokenizer,
    longest_sequence,
    resolve_model,
)
from lft.train.progress import SayLoss
from lft.train.prompt_pairs import Prompt, with_references
from lft.train.strategy import CheckStrategy, sharded_loading, usual_strategy
from lft.train.trainer import batch_items, token_rows


class LLMFineTuner:
    """Fine-tunes a causal language model with LoRA; see the API reference in docs/api.md.

    Under a launcher (torchrun, lft) each rank makes one and calls the same methods. Attributes: model_name, output_dir,
    device ("cuda" or "cpu"), tokenizer, model (the frozen base), peft_model (base and adapter), precision.
    """

    def __init__(self, model_name: str, output_dir: str = "./finetuned_model") -> None:
        self.model_name = model_name
        self.output_dir = output_dir
        self.device: Literal["cpu", "cuda"] = find_device()
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.model: PreTrainedModel | None = None
        self.peft_model: PeftModel | None = None
        self.precision: Precision | None = None
        self.rank = Rank.from_environment()
        self.strategy: Strategy = usual_strategy(self.rank, torch.cuda.device_count() if self.device == "cuda" else 0)
        self.deepspeed: dict[str, Any] | None = None
        self.wrapper = ""
        self.announce: Callable[[str], None] = say
        self._style: Style | None = None
        self._chat_template: str | None = None
        self._resolved_name: str | None = None
        self._longest: int | None = None
        self._sharded_loading: object | None = None
        self._load_base: Callable[[], PreTrainedModel]
        self._variant = LoraSettings()

    def load_tokenizer(self, *, revision: str | None = None, trust_remote_code: bool = False) -> None:
        """Load the tokenizer alone, which is all that preparing data needs."""
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        self._resolved_name = resolve_model(self.model_name, self.announce)
        self.tokenizer = load_tokenizer(self._resolved_name, **options)
        self.tokenizer.chat_template = self._chat_template or self.tokenizer.chat_template
        self._longest = longest_sequence(self._resolved_name, **options)

    def load_model(
        self,
        *,
        precision: Precision | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        quantization: Quantization = "none",
    ) -> None:
        """Load tokenizer and base model: half precision on CUDA, float32 on a CPU, or `precision`.

        With `quantization` the frozen weights are kept in 4 or 8 bits, and computed with in that precision.
        Raises PreflightError where the model cannot be had or the precision cannot work here.
        """
        self.load_tokenizer(revision=revision, trust_remote_code=trust_remote_code)
        assert self._resolved_name is not None
        self.peft_model = None
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        self.precision, reason = base_precision(self._resolved_name, precision, self.device, **options)
        self._sharded_loading = sharded_loading(self.strategy, self.device, self.deepspeed, self.precision)
        place = device_map(self.strategy, self.device, self.rank.local_rank)
        with translating_out_of_memory():
            self.model = load_base_model(self._resolved_name, self.precision, place, quantization, **options)
        self._load_base = partial(load_base_model, self._resolved_name, self.precision, place, quantization, **options)
        why = f": {reason}" if precision is None else ""
        kept = "" if quantization == "none" else f"{quantization} weights, "
        self.announce(f"model      {Path(self.model_name).name}, {kept}{self.precision} on {self.device}{why}")

    def load_dataset_from_source(
        self,
        dataset_source: str,
        dataset_config: str | None = None,
        split: str = "train",
        num_samples: int | None = None,
        data_files: str | None = None,
    ) -> Dataset:
        """Rows of a local file, folder or pattern, or of a Hub data set. Raises DataError with file and line."""
        values = {"config": dataset_config, "split": split, "num_samples": num_samples, "data_files": data_files}
        return load_rows(DataSettings.model_validate({"source": dataset_source} | values), cache=usable_cache())

    def detect_text_columns(self, dataset: Dataset) -> list[str]:
        """Text columns with a common name (text, prompt, response, ...), or else all text columns."""
        return text_columns(dataset)

    def prepare_dataset(
        self,
        dataset: Dataset,
        text_columns: list[str] | None = None,
        max_length: int = 512,
        *,
        loss_on: Literal["auto", "completion", "assistant", "all"] = "auto",
    ) -> tuple[Dataset, list[str]]:
        """Tokens of the rows (columns input_ids and labels, each (tokens,) per row), and the columns used.

        Rows are cut to `max_length` tokens and padded later, by batch. Under a launcher the ranks share the work.
        Raises DataError where a row cannot be used or nothing is left to train.
        """
        tokenizer = self._need_tokenizer("prepare_dataset")
        if len(dataset) == 0:
            raise DataError("the data set holds no rows")
        columns = (text_columns,) if isinstance(text_columns, str) else tuple(text_columns or ()) or None
        values = {"text_columns": columns, "max_length": max_length, "loss_on": loss_on}
        work = Work(rank=self.rank, announce=self.announce)
        prepared = prepare_in_memory(dataset, values, tokenizer, self._longest, work)
        audit_prepared(self._written_as(prepared), self.announce)
        return prepared.dataset(), list(prepared.manifest.columns)

    def prepare_data(
        self,
        settings: RunSettings,
        *,
        processes: int = 1,
        between: Callable[[int, int], None] = lambda _made, _blocks: None,
        rows_needed: int | None = None,
    ) -> Prepared:
        """The rows of `settings.data` as tokens, training and held-out ones; what the launcher's ranks call.

        All ranks share the work, each with `processes`. `between` is told how many of how many blocks are made, and may
        raise. Needs no load_model() before it.
        """
        model = settings.model
        work = Work(rank=self.rank, announce=self.announce, processes=processes, between=between)

        def load() -> tuple[PreTrainedTokenizerBase, int | None]:
            if self.tokenizer is None:
                self.load_tokenizer(revision=model.revision, trust_remote_code=model.trust_remote_code)
            assert self.tokenizer is not None
            return self.tokenizer, self._longest

        return self._written_as(prepare(model, settings.data, load, work, rows_needed=rows_needed))

    def _written_as(self, prepared: Prepared) -> Prepared:
        """From now on prompts are written as this data was."""
        self._style, self._chat_template = prepared.manifest.style, prepared.manifest.chat_template
        if self.tokenizer is not None:
            self.tokenizer.chat_template = self._chat_template or self.tokenizer.chat_template
        return prepared

    def get_target_modules(self) -> list[str] | str:
        """The attention layers of the model's family, checked against its real layers, or "all-linear"."""
        return target_modules(self._need_model("get_target_modules"))

    def setup_lora(
        self,
        r: int = 8,
        lora_alpha: int = 32,
        lora_dropout: float = 0.1,
        target_modules: Sequence[str] | str | None = None,
        *,
        seed: int = 42,
        variant: LoraSettings = LoraSettings(),  # noqa: B008  frozen
    ) -> None:
        """Put a fresh adapter on the model, in place of any earlier one, and print how many parameters it trains.

        `variant` holds all the other settings of an adapter (use_dora, init_lora_weights, ...).
        """
        model = self._need_model("setup_lora")
        if self.peft_model is not None:
            self.model = model = unchanged_base(self.peft_model, self._load_base) or self.peft_model.unload()
            self.peft_model = None
        set_seed(seed)
        targets = target_modules if target_modules is not None else self.get_target_modules()
        options = LoraOptions(
            r=r, lora_alpha=lora_alpha, lora_dropout=lora_dropout, target_modules=targets, variant=variant
        )
        self.peft_model, self._variant = apply_lora(model, options), variant
        trained, total = self.peft_model.get_nb_trainable_parameters()
        if self.rank.is_main:
            say(f"trainable params: {trained:,} || all params: {total:,} || trainable%: {100 * trained / total:.4f}")

    def train(
        self,
        train_dataset: Dataset | TokenRows,
        num_epochs: int = 3,
        batch_size: int = 4,
        learning_rate: float = 2e-4,
        *,
        gradient_accumulation_steps: int = 4,
        settings: TrainingSettings = TrainingSettings(),  # noqa: B008  frozen
        callbacks: Sequence[TrainerCallback] = (),
        resume_from: Path | None = None,
        pack_size: int | None = None,
        meanwhile: Meanwhile = Meanwhile(),  # noqa: B008  frozen
    ) -> None:
        """Train the adapter; checkpoints and, at the end, adapter and tokenizer are in output_dir.

        `train_dataset` has a column input_ids, and may have attention_mask and labels; `settings` says the rest (seed,
        max_steps, learning rate schedule, ...). `resume_from` is a checkpoint of the same run to go on from, with as many
        rows a step on any number of ranks. With `pack_size`, rows are packed into sequences of at most so many tokens, and
        batch_size counts packs. `meanwhile`: a stop, saves, held-out rows.
        Raises OutOfMemoryError (a RuntimeError) when memory runs out; KeyboardInterrupt passes through. Checkpoints stay.
        """
        if self.peft_model is None or self.tokenizer is None or self.precision is None:
            raise CallOrderError("train() needs an adapter", next_step="call load_model(), then setup_lora()")
        if len(train_dataset) == 0:
            raise DataError("train() needs rows, and there are none")
        rows = token_rows(train_dataset, self.tokenizer.pad_token_id)
        asked = {"num_epochs": num_epochs, "batch_size": batch_size, "learning_rate": learning_rate}
        settings = TrainingSettings.model_validate(settings.model_dump() | asked)
        folder = Path(self.output_dir)
        how = StrategyOrder(self.strategy, self.rank, self.device, self.deepspeed, self.precision)
        arguments = run_arguments(self.peft_model, settings, gradient_accumulation_steps, folder, how)
        engine = make_engine(self.peft_model, self.rank, self.strategy, self.device, self.precision, settings)
        size = min(pack_size, self._longest or pack_size) if pack_size else None
        items, packing = batch_items(rows, size, settings.seed, engine)
        for line in (*engine.reasons, *packing):
            self.announce(line)
        check = CheckStrategy(self.strategy, self.rank.world_size)
        check.trainer = trainer = make_trainer(
            self.peft_model,
            self.tokenizer,
            items,
            arguments,
            self.rank,
            [check, *(callbacks or [SayLoss(self.announce)])],
            engine.trained_tokens,
            settings,
            self.precision,
            resume_from,
            meanwhile,
            self._variant.loraplus_lr_ratio,
        )
        with translating_out_of_memory():
            trainer.train()
            self._save(self.peft_model, self.tokenizer, folder)
        self.wrapper = check.wrapper

    def _save(self, model: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
        weights = gather_adapter(model)
        if self.rank.is_main:
            save_adapter(model, weights, tokenizer, folder, self._style or usual_style(tokenizer), self.model_name)

    def benchmark(
        self,
        test_prompts: Sequence[Prompt],
        use_finetuned: bool = False,
        *,
        max_new_tokens: int = 128,
        batch_size: int = 16,
    ) -> dict[str, float]:
        """ROUGE of greedy answers: {"rouge1": ..., "rouge2": ..., "rougeL": ...}, each between 0 and 1.

        A prompt without a reference is compared with itself. The base model is measured without the adapter even after
        training; the tuned one is loaded from output_dir where this process has not trained it.
        """
        from lft.train.rouge import mean_scores, rouge_scores  # a second of imports that training does not need

        tokenizer = self._need_tokenizer("benchmark")
        pairs = with_references(test_prompts, self.announce)
        tokens = prompt_tokens(tokenizer, self.prompt_style, [prompt for prompt, _ in pairs])
        with translating_out_of_memory(), self.measuring(use_finetuned=use_finetuned) as measured:
            answers = answer_all(measured, tokenizer, tokens, max_new_tokens, batch_size)
        return mean_scores(rouge_scores(answers, [reference for _, reference in pairs]))

    def upload_to_huggingface(
        self, repo_name: str, token: str | None = None, create_new: bool = False, private: bool = False
    ) -> None:
        """Upload adapter, tokenizer and model card of output_dir to `repo_name` and print where they are.

        Raises UploadError, without the token in it, where the Hub refuses or cannot be reached.
        """
        wish = UploadSettings.model_construct(repo_name=repo_name, create_new=create_new, private=private)
        done = upload_adapter(Path(self.output_dir), wish, token=token, announce=self.announce)
        say(f"Model uploaded successfully to: {done.url}" + ("" if done.is_new else " (no file had changed)"))

    @property
    def prompt_style(self) -> Style:
        """How prompts are written: as the data was prepared, or as the adapter in output_dir says, or the usual way."""
        usual = usual_style(self._need_tokenizer("benchmark"))
        return self._style or saved_style(Path(self.output_dir)) or usual

    @contextmanager
    def measuring(self, *, use_finetuned: bool) -> Iterator[PreTrainedModel | PeftModel]:
        """The base or the tuned model, ready to answer; the tuned one is loaded from output_dir where it has to be."""
        base = self._need_model("benchmark")
        if use_finetuned and self.peft_model is None:
            self.peft_model = load_adapter(base, Path(self.output_dir))
        model = (None if use_finetuned else unchanged_base(self.peft_model, self._load_base)) or self.peft_model or base
        was_training = model.training
        model.eval()
        try:
            with model.disable_adapter() if isinstance(model, PeftModel) and not use_finetuned else nullcontext():
                yield model
        finally:
            model.train(was_training)

    def _need_tokenizer(self, method: str) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise CallOrderError(f"{method}() needs the tokenizer", next_step="call load_model() first")
        return self.tokenizer

    def _need_model(self, method: str) -> PreTrainedModel:
        if self.model is None:
            raise CallOrderError(f"{method}() needs the model", next_step="call load_model() first")
        return self.model
