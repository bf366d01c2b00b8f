"""A metric that a run file names is looked at before anything starts, and nothing of it is run."""

import json
from pathlib import Path

import pytest

from lft.core.errors import SettingsError
from lft.core.local_metric import metric_problem, metric_script
from lft.core.settings_file import read_settings

GOOD = "import evaluate\n\nclass Mine(evaluate.Metric):\n    pass\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(GOOD)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "folder.py").write_text(
        "from .near import x\nimport evaluate\nclass A(evaluate.Metric): pass\n"
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.py").write_text("import evaluate\n\nclass (:\n")
    (tmp_path / "plain.py").write_text("print('never run')\nraise SystemExit(1)\n")
    (tmp_path / "needs.py").write_text("import numpy, no_such_package\nfrom nor_this.one import x\n" + GOOD)
    (tmp_path / "notes.txt").write_text("x")


@pytest.mark.parametrize("name", ["rouge", "mine.py", "./mine.py", "folder"])
def test_scripts_and_folders_on_this_machine_are_metrics(name: str) -> None:
    assert metric_problem(name) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bleu", "bleu is on the Hub, if anywhere; rouge or the path of a metric's script on this machine is expected"),
        ("./nine.py", "./nine.py does not exist; in that folder: mine.py"),
        ("empty", "empty holds no empty.py, which would be the metric's script"),
        ("broken.py", "broken.py:3 is no Python: "),
        ("plain.py", "plain.py holds no class; one derived from evaluate.Metric is expected"),
        (
            "needs.py",
            "imports no_such_package, nor_this, which this Python has not: pip install no_such_package nor_this",
        ),
        ("notes.txt", "notes.txt is no Python script"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_words(name: str, words: str) -> None:
    assert words in str(metric_problem(name))


def test_a_run_file_with_wrong_metrics_is_refused_with_all_of_them_and_their_lines(tmp_path: Path) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(
        "model: {name: a/b}\ndata: {source: c/d}\nbenchmark:\n  metrics:\n  - bleu\n  - rouge\n  - empty\n"
    )
    with pytest.raises(SettingsError) as caught:
        read_settings(run_file, {}, ())
    assert [mistake.split("  ")[0] for mistake in caught.value.mistakes] == ["run.yaml:5", "run.yaml:7"]
    assert "benchmark.metrics.0 bleu is on the Hub" in caught.value.mistakes[0]


def test_the_resolved_settings_name_a_metric_wherever_they_are_read(tmp_path: Path) -> None:
    values = {"model.name": ("--model", "a/b"), "data.source": ("--dataset", "c/d")}
    settings = read_settings(None, values, ('benchmark.metrics=["rouge", "folder"]',))
    assert settings.benchmark.metrics == ("rouge", str(tmp_path / "folder"))
    assert json.loads(settings.model_dump_json())["benchmark"]["metrics"] == ["rouge", str(tmp_path / "folder")]
    assert metric_script(settings.benchmark.metrics[1]) == tmp_path / "folder" / "folder.py"
    assert read_settings(None, values, ()).benchmark.metrics == ("rouge",)
