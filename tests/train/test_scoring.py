"""What is measured of answers: losses, ROUGE, exact match where answers are short, and metrics of one's own."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer

from lft.cli.results import score_lines
from lft.core.errors import PreflightError
from lft.core.order import WorkerReport
from lft.core.run_dir import Attempt, RunDir
from lft.train import scoring
from lft.train.answers import Line, Model, SharedWork, pieces
from lft.train.local_metric import load_metrics
from lft.train.scoring import score

METRIC = """
import datasets
import evaluate

class Mine(evaluate.Metric):
    def _info(self):
        text = datasets.Value("string")
        features = datasets.Features({"predictions": text, "references": text})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        BODY
"""
REFERENCES = ["a small dog", "to run fast", "the color of grass", "one"]
BASE = ["a dog", "run", "red", "two"]
TUNED = ["a small dog.", "to  Run fast", "the color of a lawn", "one"]


def lines(texts: list[str], losses: list[float], tokens: list[int]) -> list[Line]:
    """As ranks write them."""
    together = zip(texts, losses, tokens, strict=True)
    return [
        {"index": index, "answer": text, "loss": loss, "tokens": count, "generated": 3}
        for index, (text, loss, count) in enumerate(together)
    ]


def answered(references: list[str] = REFERENCES, **options: Any) -> dict[str, Any]:
    found: dict[Model, list[Line]] = {
        "base": lines(BASE, [8.0, 12.0, 30.0, 4.0], [2, 4, 10, 4]),
        "tuned": lines(TUNED, [4.0, 6.0, 20.0, 4.0], [2, 4, 10, 4]),
    }
    return score(references, found, options.pop("metrics", ["rouge"]), options.pop("local", []), **options)


def metric(folder: Path, body: str, name: str = "mine") -> list[Any]:
    """A metric of one's own, loaded as a rank loads it."""
    script = folder / f"{name}.py"
    script.write_text(METRIC.replace("BODY", body), encoding="utf-8")
    return load_metrics(["rouge", str(script)])


def test_rouge_is_the_mean_of_what_rouge_score_says_of_each_pair() -> None:
    found = answered(processes=2)
    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = RougeScorer(names, use_stemmer=True)
    for model, texts in (("base", BASE), ("tuned", TUNED)):
        each = [scorer.score(reference, text) for reference, text in zip(REFERENCES, texts, strict=True)]
        for name in names:
            assert found[model][name] == pytest.approx(sum(one[name].fmeasure for one in each) / 4, abs=1e-15)
    assert found["difference"]["rougeL"]["low"] > 0
    assert "rouge1" not in answered(metrics=[])["base"]


def test_perplexity_is_that_of_the_loss_of_a_trained_token_with_an_interval_of_its_own() -> None:
    found = answered()
    assert found["base"]["loss"] == pytest.approx(54 / 20)
    for model in ("base", "tuned"):
        assert found[model]["perplexity"] == pytest.approx(math.exp(found[model]["loss"]))
    difference = found["difference"]["perplexity"]
    assert difference["mean"] == pytest.approx(math.exp(34 / 20) - math.exp(54 / 20))
    assert difference["low"] < difference["mean"] < difference["high"] < 0


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [
        ("  To  run\nfast. ", "to run fast", True),
        ('"Yes!"', "yes", True),
        ("\u201cyes\u201d", "Yes.", True),
        ("-5", "5", False),
        ("C++", "C", False),
        (".5", "5", False),
        ("50%", "50", False),
        ("", "..", False),
        ("+", "-", False),
    ],
)
def test_exact_match_overlooks_how_a_sentence_is_written_and_no_sign(answer: str, expected: str, same: bool) -> None:
    found: dict[Model, list[Line]] = {"base": lines([answer], [1.0], [1]), "tuned": lines([answer], [1.0], [1])}
    assert score([expected], found, [], [])["base"]["exact_match"] == float(same)


def test_exact_match_needs_short_answers() -> None:
    found = answered()
    assert (found["base"]["exact_match"], found["tuned"]["exact_match"]) == (0.0, 0.75)
    long = "this one is much too long to be said again word for word"
    assert "exact_match" in answered([long, *REFERENCES[1:]])["base"], "most are short"
    assert "exact_match" not in answered([long, long, long, "one"])["base"]


def test_a_metric_that_scores_each_answer_is_resampled_as_rouge_is(tmp_path: Path) -> None:
    body = "return {'words': [len(text.split()) for text in predictions], 'junk': ['x'] * len(references)}"
    found = answered(local=metric(tmp_path, body))
    assert (found["base"]["words"], found["tuned"]["words"]) == (1.25, 3.0)
    assert found["difference"]["words"]["low"] <= 1.75 <= found["difference"]["words"]["high"]
    assert "junk" not in found["base"]


def test_a_metric_that_gives_one_number_is_computed_again_for_each_resample(tmp_path: Path) -> None:
    body = "return {'longest': float(max(map(len, predictions))), 'loss': 1.0}"
    asked: list[None] = []
    found = answered(local=metric(tmp_path, body, "other"), between=lambda: asked.append(None))
    assert (found["base"]["longest"], found["tuned"]["longest"]) == (5.0, 19.0)
    difference = found["difference"]["longest"]
    assert (difference["low"], difference["high"]) == (7.0, 16.0), "12 - 5 and 19 - 3: resamples without the longest"
    assert found["difference"]["other.loss"] == {"mean": 0.0, "low": 0.0, "high": 0.0, "significant": False}
    assert len(asked) > scoring.METRIC_RESAMPLES


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError('oh')", "failed: KeyError: 'oh'"),
        ("return {'x': float('nan')}", "returned no number"),
        ("return 3", "returned no number"),
    ],
)
def test_a_metric_that_fails_is_named(body: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"mine\.py") as caught:
        answered(local=metric(tmp_path, body))
    assert words in str(caught.value)
    assert "leave it out of benchmark.metrics" in str(caught.value)


def test_a_metric_whose_code_fails_when_it_is_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "import evaluate\nclass A(evaluate.Metric): pass\nraise RuntimeError('at import')\n"
    )
    with pytest.raises(PreflightError, match=r"bad.py cannot be loaded: RuntimeError: at import"):
        load_metrics([str(tmp_path / "bad.py")])


def test_each_piece_is_taken_once_kept_whole_and_found_again_by_the_next_attempt(tmp_path: Path) -> None:
    run_dir, work = RunDir(tmp_path), pieces([[1, 0], [2]])
    first = [SharedWork(run_dir, Attempt(tmp_path / "run" / "attempt-0"), "d", work) for _ in range(2)]
    one, two = first[0].take(), first[1].take()
    taken = [next(one), next(two), next(one)]
    assert [piece.name for piece in taken] == ["base-00000", "base-00001", "tuned-00000"]
    for piece in taken[:2]:
        first[0].keep(piece, [{"index": index, "answer": piece.name} for index in piece.batch])
    assert (first[0].found, first[1].done()) == (0, 2)

    again = SharedWork(run_dir, Attempt(tmp_path / "run" / "attempt-1"), "d", work)
    assert again.found == 2
    for piece in again.take():
        assert piece.model == "tuned", "base is answered"
        again.keep(piece, [{"index": index, "answer": piece.name} for index in piece.batch])
    late = SharedWork(run_dir, Attempt(tmp_path / "run" / "attempt-1"), "d", work)
    lines = again.collect(lambda: pytest.fail("nothing is missing"))
    assert [line["index"] for line in lines["tuned"]] == [0, 1, 2]
    assert json.dumps(lines["base"][2]) == '{"index": 2, "answer": "base-00001"}'
    again.finish()
    assert not run_dir.answers.exists()
    assert list(late.take()) == []
    assert late.done() == len(work)
    assert SharedWork(run_dir, Attempt(tmp_path / "run" / "attempt-2"), "other", work).found == 0


def test_a_loss_that_is_no_number_reaches_the_report_and_shows_no_difference(tmp_path: Path) -> None:
    found: dict[Model, list[Line]] = {"base": lines(BASE[:1], [math.nan], [2]), "tuned": lines(TUNED[:1], [1.0], [2])}
    scores = score(REFERENCES[:1], found, [], [])
    assert scores["difference"]["loss"]["significant"] is False
    WorkerReport(ok=True, rank=0, stage="scoring", metrics={"benchmark": scores}).save(tmp_path / "report.json")
    kept = WorkerReport.load(tmp_path / "report.json").metrics["benchmark"]
    assert math.isnan(kept["base"]["loss"])
    assert "nan" in "\n".join(score_lines(kept | {"prompts": 1}, 80))
