"""What a benchmark asks: rows whose answer is whole, and of a streamed source the rows of the training."""

import json
from pathlib import Path

from lft.core.order import WorkerReport
from lft.core.settings import RunSettings
from lft.plan.launch_plan import make_plan
from lft.train.benchmark import questions
from lft.train.finetuner import LLMFineTuner
from lft.train.jobs import rows_needed
from tests.conftest import TinyModels
from tests.runs import MACHINE


def test_a_conversation_that_was_cut_before_its_last_answer_is_not_asked(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    def chat(words: int) -> dict[str, object]:
        turns = ("user", "hi"), ("assistant", "hello"), ("user", "word " * words), ("assistant", f"the end of {words}")
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(chat(words)) + "\n" for words in (3, 400, 4)))
    values = {"model": {"name": str(tiny_models.llama)}, "output_dir": tmp_path / "out"}
    data = {"source": str(tmp_path / "rows.jsonl"), "held_out": 0, "max_length": 64}
    settings = RunSettings.model_validate(values | {"data": data})
    finetuner = LLMFineTuner(settings.model.name, str(tmp_path / "out"))
    finetuner.load_tokenizer()
    prepared = finetuner.prepare_data(settings)
    assert len(prepared.training) == 3, "the first answer of the long one is trained"
    asked = questions(finetuner, prepared, limit=10)
    assert [question.reference for question in asked] == ["the end of 3", "the end of 4"]


def test_a_benchmark_of_a_streamed_source_reads_the_rows_of_the_training_on_any_number_of_ranks() -> None:
    values = {"model": {"name": "a/b"}, "data": {"source": "c/d", "streaming": True}, "launch": {"cpu_procs": 2}}
    settings = RunSettings.model_validate(values | {"training": {"max_steps": 10}})
    plan = make_plan(settings, MACHINE)
    trained = rows_needed(plan.order("train"))
    for ranks in (1, 2, 4):
        alone = plan.order("benchmark").model_copy(update={"world_size": ranks})
        assert rows_needed(alone) == trained


def test_a_failure_whose_message_is_no_text_is_written_down(tmp_path: Path) -> None:
    report = WorkerReport.of_failure(0, "training", OSError("caf\udce9.json is missing"), "Traceback")
    report.save(tmp_path / "failure.json")
    assert WorkerReport.load(tmp_path / "failure.json").message == "caf\\udce9.json is missing"
