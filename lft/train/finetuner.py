"""LLMFineTuner: the pipeline as a library, one method per stage. The worker calls the same methods."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed

from lft.core.console import say
from lft.core.errors import CallOrderError, DataError
from lft.core.rank import Rank
from lft.core.settings import Precision, Strategy, TrainingSettings
from lft.data.cache import usable_cache
from lft.data.chat import Style, choose_style, describe_style
from lft.data.columns import recognise, text_columns
from lft.data.dataset import load_rows
from lft.data.shards import tokenize_sharded
from lft.data.tokenization import TokenCounts, TokenRules
from lft.publish.upload import upload_adapter
from lft.train.adapter import gather_adapter, load_adapter, save_adapter, saved_style
from lft.train.engine import make_engine
from lft.train.generation import generate_answers, length_batches, prompt_tokens
from lft.train.lora import LoraOptions, apply_lora, target_modules
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
from lft.train.rouge import mean_scores, rouge_scores
from lft.train.strategy import (
    CheckStrategy,
    check_order,
    layer_classes,
    sharded_loading,
    strategy_arguments,
    usual_strategy,
)
from lft.train.trainer import make_trainer, training_arguments

Prompt = str | tuple[str, str]
"""A prompt, or a prompt and the reference its answer is compared with."""


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
        self.token_counts: TokenCounts | None = None
        self._style: Style | None = None
        self._resolved_name: str | None = None
        self._longest: int | None = None
        self._sharded_loading: object | None = None

    def load_tokenizer(self, *, revision: str | None = None, trust_remote_code: bool = False) -> None:
        """Load the tokenizer alone, which is all that preparing data needs."""
        options = {"revision": revision, "trust_remote_code": trust_remote_code}
        self._resolved_name = resolve_model(self.model_name, self.announce)
        self.tokenizer = load_tokenizer(self._resolved_name, **options)
        self._longest = longest_sequence(self._resolved_name, **options)

    def load_model(
        self,
        *,
        precision: Precision | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """Load tokenizer and base model: half precision on CUDA, float32 on a CPU, or `precision`.

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
            self.model = load_base_model(self._resolved_name, self.precision, place, **options)
        why = f": {reason}" if precision is None else ""
        self.announce(f"model      {Path(self.model_name).name}, {self.precision} on {self.device}{why}")

    def load_dataset_from_source(
        self,
        dataset_source: str,
        dataset_config: str | None = None,
        split: str = "train",
        num_samples: int | None = None,
        data_files: str | None = None,
    ) -> Dataset:
        """Rows of a local file, folder or pattern, or of a Hub data set. Raises DataError with file and line."""
        return load_rows(
            dataset_source, config=dataset_config, split=split, num_samples=num_samples, data_files=data_files
        )

    def detect_text_columns(self, dataset: Dataset) -> list[str]:
        """Text columns with a common name (text, prompt, response, ...), or else all text columns."""
        return text_columns(dataset)

    def prepare_dataset(
        self,
        dataset: Dataset,
        text_columns: list[str] | None = None,
        max_length: int = 512,
        *,
        loss_on: Literal["completion", "all"] = "completion",
    ) -> tuple[Dataset, list[str]]:
        """Tokens of the rows (columns input_ids, attention_mask, labels, each (tokens,) per row), and the columns used.

        Rows are cut to `max_length` tokens and padded later, by batch. Raises DataError where nothing is left to train.
        """
        tokenizer = self._need_tokenizer("prepare_dataset")
        if len(dataset) == 0:
            raise DataError("the data set holds no rows")
        rules = self.token_rules(dataset, text_columns, max_length, loss_on)
        tokens, counts = tokenize_sharded(
            dataset, tokenizer, rules, cache=usable_cache(), rank=self.rank, announce=self.announce
        )
        if counts.trained == 0:
            raise DataError(
                f"none of the {counts.rows} rows has a token to train on within max_length {rules.max_length}",
                next_step="look for empty rows, or raise max_length",
            )
        trained = "the answer" if rules.format.answer_column and loss_on == "completion" else "all of it"
        self.announce(f"columns    {rules.format.describe()}, as {describe_style(rules.style)}; trained: {trained}")
        self.announce(
            f"data       {counts.kept:,} rows of {counts.tokens_per_row:.0f} tokens, "
            f"{counts.trained / counts.tokens:.0%} of them trained; {counts.cut:,} rows cut at {rules.max_length} tokens, "
            f"{counts.dropped:,} without text or answer dropped"
        )
        self.token_counts = counts
        return tokens, rules.format.columns

    def token_rules(
        self, dataset: Dataset, text_columns: list[str] | None, max_length: int, loss_on: Literal["completion", "all"]
    ) -> TokenRules:
        """How rows of `dataset` become tokens; from now on prompts are written the same way. Raises DataError."""
        tokenizer = self._need_tokenizer("prepare_dataset")
        row_format = recognise(dataset, text_columns)
        self._style = choose_style(tokenizer, has_answers=row_format.answer_column is not None)
        if self._longest is not None and max_length > self._longest:
            self.announce(
                f"data       max_length {max_length} is more than the model's {self._longest} positions, which are used"
            )
        return TokenRules(row_format, self._style, min(max_length, self._longest or max_length), loss_on)

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
    ) -> None:
        """Put a fresh adapter on the model, in place of any earlier one, and print how many parameters it trains."""
        model = self._need_model("setup_lora")
        if self.peft_model is not None:
            self.model = model = self.peft_model.unload()
            self.peft_model = None
        set_seed(seed)
        targets = target_modules if target_modules is not None else self.get_target_modules()
        options = LoraOptions(r=r, lora_alpha=lora_alpha, lora_dropout=lora_dropout, target_modules=targets)
        self.peft_model = apply_lora(model, options)
        trained, total = self.peft_model.get_nb_trainable_parameters()
        if self.rank.is_main:
            say(f"trainable params: {trained:,} || all params: {total:,} || trainable%: {100 * trained / total:.4f}")

    def train(
        self,
        train_dataset: Dataset,
        num_epochs: int = 3,
        batch_size: int = 4,
        learning_rate: float = 2e-4,
        *,
        gradient_accumulation_steps: int = 4,
        settings: TrainingSettings = TrainingSettings(),  # noqa: B008  frozen
        callbacks: Sequence[TrainerCallback] = (),
        resume_from: Path | None = None,
    ) -> None:
        """Train the adapter; checkpoints and, at the end, adapter and tokenizer are in output_dir.

        `train_dataset` has a column input_ids, and may have attention_mask and labels; `settings` says the rest (seed,
        max_steps, learning rate schedule, ...). `resume_from` is a checkpoint of the same run, on as many ranks, to go
        on from. Raises OutOfMemoryError (a RuntimeError) when memory runs out; KeyboardInterrupt passes through.
        Checkpoints are kept in both cases.
        """
        if self.peft_model is None or self.tokenizer is None or self.precision is None:
            raise CallOrderError("train() needs an adapter", next_step="call load_model(), then setup_lora()")
        if len(train_dataset) == 0:
            raise DataError("train() needs rows, and there are none")
        if "input_ids" not in train_dataset.column_names:
            raise CallOrderError(
                "train() needs tokenized rows", next_step="call prepare_dataset() and pass what it returns"
            )
        asked = {"num_epochs": num_epochs, "batch_size": batch_size, "learning_rate": learning_rate}
        settings = TrainingSettings.model_validate(settings.model_dump() | asked)
        check_order(self.strategy, self.rank.world_size, self.deepspeed, settings, gradient_accumulation_steps)
        shared = strategy_arguments(
            self.strategy,
            self.rank,
            self.device,
            deepspeed=self.deepspeed,
            precision=self.precision,
            layers=layer_classes(self.peft_model),
        )
        folder = Path(self.output_dir)
        arguments = training_arguments(
            settings, gradient_accumulation_steps, folder, self.device, self.precision, shared
        )
        engine = make_engine(self.peft_model, self.rank, self.strategy, self.device, self.precision)
        for reason in engine.reasons:
            self.announce(reason)
        check = CheckStrategy(self.strategy, self.rank.world_size)
        told = [check, *(callbacks or [SayLoss(self.announce)])]
        check.trainer = trainer = make_trainer(
            self.peft_model, self.tokenizer, train_dataset, arguments, self.rank, told, engine.trained_tokens
        )
        with translating_out_of_memory():
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
            weights = gather_adapter(self.peft_model)
        self.wrapper = check.wrapper
        if self.rank.is_main:
            style = self._style or choose_style(self.tokenizer, has_answers=True)
            save_adapter(self.peft_model, weights, self.tokenizer, folder, style, self.model_name)

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
        tokenizer = self._need_tokenizer("benchmark")
        if isinstance(test_prompts, str):
            test_prompts = [test_prompts]
        if not test_prompts:
            raise CallOrderError("benchmark() needs prompts", next_step="pass a list of texts")
        pairs = [(prompt, prompt) if isinstance(prompt, str) else (prompt[0], prompt[1]) for prompt in test_prompts]
        without = sum(isinstance(prompt, str) for prompt in test_prompts)
        if without:
            self.announce(
                f"benchmark  {without} prompts have no reference; their answers are compared with the prompt itself"
            )
        tokens = prompt_tokens(tokenizer, self.prompt_style, [prompt for prompt, _ in pairs])
        answers = [""] * len(pairs)
        with translating_out_of_memory(), self.measuring(use_finetuned=use_finetuned) as measured:
            for batch in length_batches([len(ids) for ids in tokens], batch_size):
                texts = generate_answers(measured, tokenizer, [tokens[index] for index in batch], max_new_tokens)
                for index, text in zip(batch, texts, strict=True):
                    answers[index] = text
        return mean_scores(rouge_scores(answers, [reference for _, reference in pairs]))

    def upload_to_huggingface(
        self, repo_name: str, token: str | None = None, create_new: bool = False, private: bool = False
    ) -> None:
        """Upload adapter, tokenizer and model card of output_dir to `repo_name` and print where they are.

        Raises UploadError, without the token in it, where the Hub refuses or cannot be reached.
        """
        url = upload_adapter(Path(self.output_dir), repo_name, token=token, create_new=create_new, private=private)
        say(f"Model uploaded successfully to: {url}")

    @property
    def prompt_style(self) -> Style:
        """How prompts are written: as the data was prepared, or as the adapter in output_dir says, or the usual way."""
        usual = choose_style(self._need_tokenizer("benchmark"), has_answers=True)
        return self._style or saved_style(Path(self.output_dir)) or usual

    @contextmanager
    def measuring(self, *, use_finetuned: bool) -> Iterator[PreTrainedModel | PeftModel]:
        """The base or the tuned model, ready to answer; the tuned one is loaded from output_dir where it has to be."""
        base = self._need_model("benchmark")
        if use_finetuned and self.peft_model is None:
            self.peft_model = load_adapter(base, Path(self.output_dir))
        model = self.peft_model or base
        was_training = model.training
        model.eval()
        try:
            without = nullcontext() if use_finetuned or self.peft_model is None else self.peft_model.disable_adapter()
            with without:
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
