"""Settings: what a run file, flags and --set mean, and that written settings mean the same when read again."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lft.cli.main import run
from lft.core.errors import SettingsError
from lft.core.order import WorkerOrder
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings, to_yaml

AWKWARD = [
    "yes",
    "null",
    "007",
    "1e3",
    "2024-01-31",
    "a: b # c",
    "- x",
    " space ",
    "über\u2028",
    "line\nline",
    "~",
    "{}",
]
FULL: dict[str, Any] = {
    "model": {"name": "someone/model", "revision": "1e3", "trust_remote_code": True},
    "data": {"source": "someone/data", "config": "no", "data_files": "*.json", "max_length": 9, "held_out": 0.125},
    "lora": {"r": 1024, "lora_dropout": 0.0, "target_modules": ["q_proj", "on"]},
    "training": {"learning_rate": 1e-05, "max_steps": 7, "save_every": 3, "weight_decay": 1e-300, "max_grad_norm": 0},
    "upload": {"repo_name": "me/x", "create_new": True, "private": True},
    "launch": {"gpus": 0, "cpu_procs": 3, "strategy": "single", "precision": "bf16", "strict": True},
    "slurm": {"time": "04:00:00", "setup": AWKWARD},
    "output_dir": "~/runs/1e3",
}
LEAST: dict[str, Any] = {"model": {"name": "someone/model"}, "data": {"source": "someone/data"}}


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    """A run file."""
    path = folder / "run.yaml"
    path.write_text(text, encoding=encoding)
    return path


@pytest.mark.parametrize("values", [LEAST, FULL], ids=["least", "full"])
def test_written_settings_mean_the_same_wherever_they_are_read(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = RunSettings.model_validate(values)
    path = written(tmp_path, to_yaml(settings))
    monkeypatch.chdir(tmp_path)
    assert read_settings(path, {}, []) == settings
    assert RunSettings.model_validate_json(settings.model_dump_json()) == settings
    assert settings.output_dir.is_absolute()


def test_flags_change_the_file_and_set_changes_both(tmp_path: Path) -> None:
    path = written(tmp_path, to_yaml(RunSettings.model_validate(LEAST | {"lora": {"r": 1, "lora_alpha": 1}})))
    flags: dict[str, tuple[str, object]] = {"lora.r": ("--x", 2), "launch.gpus": ("--gpus", "2")}
    settings = read_settings(path, flags, ["launch.gpus=3", "training.seed=5", "training.seed=6"])
    assert (settings.lora.lora_alpha, settings.lora.r, settings.launch.gpus, settings.training.seed) == (1, 2, 3, 6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("2e-4", 2e-4), ("1E-5", 1e-5), ("0.5", 0.5), ("'0.01'", 0.01)],
)
def test_a_number_may_be_written_as_people_write_it(given: str, expected: float, tmp_path: Path) -> None:
    start = "model: {name: a/b}\ndata: {source: a/b}\n"
    path = written(tmp_path, f"{start}training: {{learning_rate: {given}}}\n")
    assert read_settings(path, {}, []).training.learning_rate == expected
    assert (
        read_settings(written(tmp_path, start), {}, [f"training.learning_rate={given}"]).training.learning_rate
        == expected
    )


def test_a_flag_that_looks_like_a_number_names_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        run(["plan", "--model", "a/b", "--dataset", "a/b", "--output-dir", "2024", "--cpu-procs", "1", "--json"]) == 0
    )
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert (settings["output_dir"], settings["launch"]["cpu_procs"]) == (str(tmp_path / "2024"), 1)


def test_a_run_file_from_windows_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, to_yaml(RunSettings.model_validate(FULL)).replace("\n", "\r\n"), "utf-8-sig")
    assert read_settings(path, {}, []).lora.r == 1024


def test_every_setting_is_described_in_the_schema() -> None:
    schema = RunSettings.model_json_schema()
    sections = [schema, *schema["$defs"].values()]
    undescribed = [
        name
        for section in sections
        for name, field in section["properties"].items()
        if not field.get("description") and not schema["$defs"][field["$ref"].split("/")[-1]].get("description")
    ]
    # the whole and WeightedSource, of which data.source may hold several, and neither output_dir nor sweep
    assert len(sections) == len(RunSettings.model_fields) + 2 - 2
    assert not undescribed


def test_the_schema_has_the_bounds_that_are_enforced() -> None:
    properties = RunSettings.model_json_schema()["$defs"]["LoraSettings"]["properties"]
    assert (properties["r"]["minimum"], properties["r"]["maximum"]) == (1, 1024)
    for wrong in (0, 1025):
        with pytest.raises(ValidationError):
            RunSettings.model_validate(LEAST | {"lora": {"r": wrong}})


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.seed=4294967296", "an integer from 0 to 4294967295 is expected"),
        ("lora.target_modules=[]", "is []; auto or all-linear or a list of texts, at least one, is expected"),
    ],
)
def test_values_that_a_library_would_refuse_in_the_middle_of_a_run_are_refused_in_the_settings(
    setting: str, expected: str
) -> None:
    flags: dict[str, tuple[str, object]] = {"model.name": ("--model", "a/b"), "data.source": ("--dataset", "c/d")}
    with pytest.raises(SettingsError) as caught:
        read_settings(None, flags, [setting])
    assert expected in str(caught.value)
    assert read_settings(None, flags, ["training.seed=4294967295"]).training.seed == 2**32 - 1


def test_settings_cannot_be_changed_once_made() -> None:
    settings = RunSettings.model_validate(LEAST)
    with pytest.raises(ValidationError, match="frozen"):
        settings.lora.r = 9


def test_a_home_folder_is_meant_by_a_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunSettings.model_validate(LEAST | {"output_dir": "~/runs"}).output_dir == tmp_path / "runs"
    unknown = RunSettings.model_validate(LEAST | {"output_dir": "~nobody-here/runs"}).output_dir
    assert unknown == Path.cwd() / "~nobody-here" / "runs"


def test_mistakes_in_a_list_of_sources_have_the_lines_they_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").touch()
    listed = ["{source: ./a.jsonl, weigth: 2}", "{source: 7}", "{source: ./b.jsonl, weight: 0}", "{source: ./c.txt}"]
    text = "model: {name: a/b}\ndata:\n  source:\n" + "".join(f"  - {each}\n" for each in listed)
    with pytest.raises(SettingsError) as raised:
        read_settings(written(tmp_path, text), {}, [])
    path = written(tmp_path, text).name
    assert raised.value.mistakes == (
        f"{path}:4  data.source.0.weigth is not a setting; did you mean weight?",
        f"{path}:5  data.source.1.source is 7; text is expected",
        f"{path}:6  data.source.2.weight is 0; a number above 0 is expected",
        f"{path}:6  data.source.2.source ./b.jsonl does not exist; in that folder: a.jsonl",
        f"{path}:7  data.source.3.source ./c.txt does not exist; in that folder: a.jsonl, {path}",
    )
    with pytest.raises(SettingsError, match=r"\[\"a\"\]; text or a list of {source, weight} is expected"):
        read_settings(written(tmp_path, "model: {name: a/b}\ndata: {source: [a]}\n"), {}, [])


def test_nodes_compare_the_names_and_weights_of_all_sources_and_not_their_folders(tmp_path: Path) -> None:
    def terms(*sources: dict[str, Any]) -> object:
        values = LEAST | {"data": {"source": sources if len(sources) > 1 else sources[0]["source"]}}
        settings = RunSettings.model_validate(values)
        rest: dict[str, Any] = {
            "strategy": "ddp",
            "world_size": 2,
            "device": "cpu",
            "precision": None,
            "accumulation": 1,
        }
        order = WorkerOrder(job="train", attempt_dir=tmp_path, settings=settings, **rest)
        return order.terms()["data.source"]

    first, second = {"source": "/a/x.txt"}, {"source": "/a/y.txt", "weight": 2}
    assert terms(first) == terms({"source": "/b/x.txt"}) == "x.txt"
    assert terms(first, second) == terms({"source": "/b/x.txt"}, {"source": "/c/y.txt", "weight": 2})
    assert terms(first, second) != terms(first, second | {"weight": 3})
