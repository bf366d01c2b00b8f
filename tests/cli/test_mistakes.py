"""What a user gets wrong, on the real command line: every mistake is said at once, in its place, and nothing is written."""

from pathlib import Path

import pytest

from lft.cli.main import run
from lft.cli.options import FLAGS
from lft.core.settings import LoraSettings

BASE = "model: {name: ./model}\ndata: {source: ./rows.jsonl}\noutput_dir: out\n"
MISSING = (
    "it has no default, for example: lft launch --model HuggingFaceTB/SmolLM2-135M-Instruct --dataset ./data.jsonl"
)
ALL = "empty, model, notes.md, rows.jsonl, run.yaml"
LORA = ", ".join(LoraSettings.model_fields)
KINDS = ".json, .jsonl, .csv, .txt, .parquet, .arrow are read, each also gzipped (.gz)"
A_MODEL = "a model folder, a .gguf file or a Hub id is expected"


def workplace(folder: Path, run_file: str | bytes | None) -> None:
    """A folder as users have it: a model, two data files, a note, an empty folder, and perhaps run.yaml."""
    for name, text in {
        "model/config.json": "{}",
        "rows.jsonl": '{"text": "a"}\n',
        "sales.jsonl": '{"text": "b"}\n',
        "notes.md": "# notes\n",
        "empty/.keep": "",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    if run_file is not None:
        (folder / "run.yaml").write_bytes(run_file.encode() if isinstance(run_file, str) else run_file)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def mistakes_of(text: str) -> list[str]:
    """The lines of an error that name a mistake."""
    assert text.startswith("settings: "), text
    head, *lines = text.rstrip("\n").split("\n")
    assert head.split()[1] == str(len(lines)), text
    return [line.strip() for line in lines]


@pytest.mark.parametrize(
    ("run_file", "expected"),
    [
        pytest.param(
            "lora:\n  r: 8\ntraining:\n  lerning_rate: 1e-3\n",
            ["run.yaml:7  training.lerning_rate is not a setting; did you mean learning_rate?"],
            id="unknown key in a section",
        ),
        pytest.param(
            "trainig: {seed: 1}\n",
            ["run.yaml:4  trainig is not a setting; did you mean training?"],
            id="unknown section",
        ),
        pytest.param(
            "learning_rate: 1e-3\n",
            ["run.yaml:4  learning_rate is not a setting; did you mean training.learning_rate?"],
            id="section forgotten",
        ),
        pytest.param(
            "training: {lora_alpha: 16}\n",
            ["run.yaml:4  training.lora_alpha is not a setting; did you mean lora.lora_alpha?"],
            id="wrong section",
        ),
        pytest.param(
            "lora: {zzz: 1}\n", [f"run.yaml:4  lora.zzz is not a setting; known here: {LORA}"], id="nothing near it"
        ),
        pytest.param(
            "lora:\n  8: r\n", [f"run.yaml:5  lora.8 is not a setting; known here: {LORA}"], id="key that is no text"
        ),
        pytest.param(
            "lora:\n  r: eight\n",
            ['run.yaml:5  lora.r is "eight"; an integer from 1 to 1024 is expected'],
            id="text for a number",
        ),
        pytest.param(
            "lora:\n  r: true\n",
            ["run.yaml:5  lora.r is true; an integer from 1 to 1024 is expected"],
            id="yes for a number",
        ),
        pytest.param(
            "training:\n  weight_decay: yes\n",
            ["run.yaml:5  training.weight_decay is true; a number from 0 is expected"],
            id="yes for a number with a point",
        ),
        pytest.param(
            "training:\n  max_grad_norm: .inf\n",
            ["run.yaml:5  training.max_grad_norm is Infinity; a number from 0 is expected"],
            id="no finite number",
        ),
        pytest.param(
            "lora:\n  r:\n", ["run.yaml:5  lora.r is null; an integer from 1 to 1024 is expected"], id="value left out"
        ),
        pytest.param(
            "lora:\n  r: 2000\n",
            ["run.yaml:5  lora.r is 2000; an integer from 1 to 1024 is expected"],
            id="integer out of range",
        ),
        pytest.param(
            "training:\n  learning_rate: 2\n",
            ["run.yaml:5  training.learning_rate is 2; a number above 0 and below 1 is expected"],
            id="number out of range",
        ),
        pytest.param(
            "training: {save_every: 10 minutes}\n",
            [
                'run.yaml:4  training.save_every is "10 minutes"; epoch or an integer from 1 or text such as 10min is expected'
            ],
            id="neither of two kinds",
        ),
        pytest.param(
            "launch: {precision: bf61}\n",
            ['run.yaml:4  launch.precision is "bf61"; auto or fp32 or fp16 or bf16 is expected'],
            id="not one of the words",
        ),
        pytest.param(
            "lora: {target_modules: [q_proj, 3]}\n",
            [
                'run.yaml:4  lora.target_modules is ["q_proj", 3]; auto or all-linear or a list of texts, at least one, '
                "is expected",
            ],
            id="list with a number in it",
        ),
        pytest.param(
            "lora: 8\n", [f"run.yaml:4  lora is 8; a section with these keys is expected: {LORA}"], id="no section"
        ),
        pytest.param(
            "lora: {r: 8}\nlora: {r: 16}\n",
            [
                "run.yaml:5  lora stands twice, first at run.yaml:4",
                "run.yaml:5  lora.r stands twice, first at run.yaml:4",
            ],
            id="section twice",
        ),
        pytest.param(
            "lora:\n  r: 8\n  lora_alpha: 4\n  r: 16\n",
            ["run.yaml:7  lora.r stands twice, first at run.yaml:5"],
            id="key twice",
        ),
        pytest.param("lora: [1\n", ["run.yaml:5  is not YAML: expected ',' or ']', but got '<stream end>'"], id="open"),
        pytest.param(
            "lora:\n\tr: 8\n",
            ["run.yaml:5  is not YAML: found character '\\t' that cannot start any token"],
            id="tab",
        ),
        pytest.param("---\n", ["run.yaml:4  is not YAML: but found another document"], id="two documents"),
        pytest.param(
            "output_dir: ./rows.jsonl\n",
            [
                "run.yaml:4  output_dir stands twice, first at run.yaml:3",
                "run.yaml:4  output_dir {here}/rows.jsonl cannot be a folder: {here}/rows.jsonl is a file",
            ],
            id="file as output_dir",
        ),
        pytest.param(
            "upload: {repo_name: just-a-name}\n",
            [
                'run.yaml:4  upload.repo_name is "just-a-name"; '
                r"text that matches ^[\w.-]+/[\w.-]+$ is expected"
            ],
            id="repository without a user",
        ),
        pytest.param(
            "upload: {repo_name: me/x, token: hf_secret, token_file: hf_secret}\n",
            [
                "run.yaml:4  upload.token is not a setting; did you mean token_file?",
                "run.yaml:4  upload.token_file is no file that this user may read",
            ],
            id="a token, which is not repeated",
        ),
    ],
)
def test_a_mistake_in_a_run_file_is_reported_with_its_line_and_what_is_expected(
    run_file: str,
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workplace(tmp_path, BASE + run_file)
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert run(["launch", "run.yaml"]) == 2
    assert mistakes_of(capsys.readouterr().err) == [line.replace("{here}", str(tmp_path)) for line in expected]
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "run.yaml  No such file or directory"),
        (b"", f"run.yaml  model.name is missing; {MISSING}"),
        (b"data: {source: ./rows.jsonl}\n", f"run.yaml  model.name is missing; {MISSING}"),
        (b"model: {name: ./model}\ndata: {max_length: 9}\n", f"run.yaml:2  data.source is missing; {MISSING}"),
        (b"- model\n", "run.yaml:1  sections with keys are expected (model:, data:, ...), this is one list"),
        (b"model: \xff\xfe\n", "run.yaml  is not UTF-8 text (byte 7)"),
        (
            b"model: \x00\n",
            "run.yaml  is not YAML: unacceptable character #x0000: special characters are not allowed in "
            '"<unicode string>", position 7',
        ),
    ],
)
def test_a_run_file_that_cannot_be_read_as_settings_is_reported(
    content: bytes | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workplace(tmp_path, content)
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert run(["plan", "run.yaml"]) == 2
    assert mistakes_of(capsys.readouterr().err)[0] == expected
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--dataset", "./rowz.jsonl", "./rowz.jsonl does not exist; in that folder: rows.jsonl, sales.jsonl"),
        ("--dataset", "no/rows.jsonl", "no/rows.jsonl does not exist, nor does its folder; . does"),
        ("--dataset", "~nobody-here/a.csv", "~nobody-here/a.csv does not exist, nor does its folder; . does"),
        ("--dataset", "./notes.md", f"./notes.md ends in .md; {KINDS}"),
        ("--dataset", "./empty", f"./empty holds no data file; {KINDS}"),
        ("--dataset", "./*.csv", f"./*.csv matches no file; {KINDS}"),
        ("--dataset", "", 'is ""; text or a list of {source, weight} is expected'),
        ("--model", "./modle", "./modle does not exist; in that folder: model, empty"),
        ("--model", "./empty", f"./empty holds no config.json; {A_MODEL}"),
        ("--model", "./notes.md", f"./notes.md is a file; {A_MODEL}"),
        ("--model", f"./{300 * 'm'}.gguf", f"./{300 * 'm'}.gguf does not exist; in that folder: {ALL}"),
        ("--output-dir", "rows.jsonl", "{here}/rows.jsonl cannot be a folder: {here}/rows.jsonl is a file"),
        ("--output-dir", "rows.jsonl/a/b", "{here}/rows.jsonl/a/b cannot be a folder: {here}/rows.jsonl is a file"),
        ("--gpus", "some", 'is "some"; auto or an integer from 0 is expected'),
        ("--gpus", "-1", 'is "-1"; auto or an integer from 0 is expected'),
        ("--gpus", "\u00b2", 'is "\u00b2"; auto or an integer from 0 is expected'),
        ("--cpu-procs", "0", 'is "0"; auto or an integer from 1 is expected'),
        ("--strategy", "dpp", 'is "dpp"; auto or single or ddp or zero2 or zero3 or fsdp or device-map is expected'),
        ("--nodes", "0", 'is "0"; an integer from 1 is expected'),
        ("--restarts", "-1", 'is "-1"; an integer from 0 is expected'),
        ("--hang-timeout", "0", 'is "0"; auto or a number above 0 is expected'),
        ("--grace", "soon", 'is "soon"; a number above 0 is expected'),
        ("--precision", "8bit", 'is "8bit"; auto or fp32 or fp16 or bf16 is expected'),
    ],
)
def test_a_mistake_in_a_flag_is_reported_under_the_name_of_the_flag(
    flag: str,
    value: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workplace(tmp_path, BASE)
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert run(["launch", "run.yaml", flag, value]) == 2
    setting = FLAGS[flag.removeprefix("--").replace("-", "_")]
    assert mistakes_of(capsys.readouterr().err) == [f"{flag}  {setting} {expected.replace('{here}', str(tmp_path))}"]
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("lora.r", "lora.r  section.key=value is expected, for example lora.r=16"),
        ("=16", "=16  section.key=value is expected, for example lora.r=16"),
        ("lora=16", f"lora  lora is 16; a section with these keys is expected: {LORA}"),
        ("lora.=16", f"lora.  lora. is not a setting; known here: {LORA}"),
        ("lora.zz=16", f"lora.zz  lora.zz is not a setting; known here: {LORA}"),
        ("r=16", "r  r is not a setting; did you mean lora.r?"),
        ("output_dir.x=1", "output_dir.x  output_dir.x cannot be set: output_dir is no section"),
        ("lora.r=[8", 'lora.r  lora.r is "[8"; an integer from 1 to 1024 is expected'),
        ("lora.r=", "lora.r  lora.r is null; an integer from 1 to 1024 is expected"),
        ("lora.r=yes", "lora.r  lora.r is true; an integer from 1 to 1024 is expected"),
    ],
)
def test_a_mistake_in_a_set_option_is_reported_with_its_key(
    given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workplace(tmp_path, BASE)
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert run(["launch", "run.yaml", "--set", given]) == 2
    assert mistakes_of(capsys.readouterr().err) == [f"--set {expected}"]
    assert tree(tmp_path) == before


def test_every_mistake_of_file_and_flags_is_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "model: {name: ./modle}\ndata:\n  source: ./rowz.jsonl\nlora:\n  r: eight\ntraining:\n  lerning_rate: 1\n"
    workplace(tmp_path, text + "training:\n  seed: x\n")
    monkeypatch.chdir(tmp_path)
    assert run(["launch", "run.yaml", "--gpus", "x", "--set", "foo", "--output-dir", "notes.md"]) == 2
    places = [line.split("  ")[0] for line in mistakes_of(capsys.readouterr().err)]
    assert sorted(places) == sorted(
        ["run.yaml:1", "run.yaml:3", "run.yaml:5", "run.yaml:8", "run.yaml:9", "--gpus", "--set foo", "--output-dir"]
    )


@pytest.mark.parametrize("arguments", [[], ["--gpus", "4"], ["--model", "gpt2"], ["--dataset", "./rows.jsonl"]])
def test_without_settings_the_user_learns_how_to_get_them(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workplace(tmp_path, None)
    monkeypatch.chdir(tmp_path)
    assert run(["launch", *arguments]) == 2
    text = capsys.readouterr().err
    for hint in ("no ./lft.yaml", "lft launch --demo", "lft launch --model NAME --dataset FILE"):
        assert hint in text
    shown = text.split("write lft.yaml:\n\n")[1]
    (tmp_path / "data.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "lft.yaml").write_text(shown)
    assert run(["launch", "--dry-run"]) == 0, "what is shown to write works as it is shown"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["lanch"], "there is no command lanch; did you mean launch?"),
        (["launch", "--gpu", "4"], "Did you mean '--gpus'?"),
    ],
)
def test_a_command_line_that_click_refuses_is_a_usage_error(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (
            ["--gpus", "2", "--strict"],
            3,
            "2 GPUs are asked for and 0 can be used here\n  next   --gpus 0, or leave out --strict to run on what is there",
        ),
        (
            ["--precision", "fp16"],
            3,
            "fp16 on a CPU is about a thousand times slower than float32 and is refused\n"
            "  next   use precision fp32, or bf16 where the CPU multiplies it natively",
        ),
        (
            ["--set", "training.global_batch_size=10", "--set", "training.batch_size=3"],
            2,
            "settings: 1 mistake in the plan\n  training.global_batch_size(10) is no multiple of batch_size(3) x ranks(2) = 6; "
            "use 6 or 12, or another batch_size\n  next   --set training.global_batch_size=6",
        ),
    ],
)
def test_what_cannot_run_here_is_refused_with_its_arithmetic_before_anything_is_written(
    arguments: list[str],
    code: int,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workplace(tmp_path, BASE + "launch: {cpu_procs: 2}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    before = tree(tmp_path)
    assert run(["launch", "run.yaml", *arguments]) == code
    assert capsys.readouterr().err.rstrip() == expected
    assert tree(tmp_path) == before
