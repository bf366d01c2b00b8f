"""lft init: questions and answers, files that mean what was answered, nothing half-written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lft.cli.main import run
from lft.core.settings import RunSettings
from lft.core.settings_file import read_settings
from tests.conftest import TinyModels, demo_lines, run_lft

QUESTIONS = 6
ENTER = "\n" * QUESTIONS
INTERRUPTED = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background jobs ignore it
    "from lft.cli.main import run; sys.exit(run(['init']))"
)


@pytest.fixture
def folder(tmp_path: Path, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a model, and one file of data."""
    (tmp_path / "tiny").symlink_to(tiny_models.llama)
    (tmp_path / "support.jsonl").write_text("\n".join(demo_lines(60)) + "\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(folder: Path, answers: str, *options: str) -> subprocess.CompletedProcess[str]:
    """`lft init` with piped answers, where the only programs are those in the working folder: no SLURM unless put there."""
    command = [sys.executable, "-m", "lft.cli.main", "init", *options]
    environment = os.environ | {"PATH": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environment, input=answers, capture_output=True, text=True, timeout=120, check=False
    )


def written(folder: Path, name: str = "lft.yaml") -> RunSettings:
    """The settings of the file."""
    return read_settings(folder / name, {}, ())


def test_questions_have_defaults_and_the_file_means_what_was_answered(folder: Path) -> None:
    answers = "tiny\n\n\nqual\nruns/mine\nme/support-lora\nno\n"
    done = init(folder, answers)
    assert done.returncode == 0, done.stderr
    settings = written(folder)
    assert settings.model.name == str(folder / "tiny")
    assert settings.data.source == str(folder / "support.jsonl")
    assert settings.output_dir == folder / "runs/mine"
    assert (settings.upload.repo_name, settings.upload.create_new, settings.upload.private) == (
        "me/support-lora",
        True,
        False,
    )
    assert (settings.lora.target_modules, settings.training.keep_best) == ("all-linear", True)
    for shown in (
        "60 rows, read as {prompt} -> {completion}",
        "the longest row has about",
        "model      llama, ",
        "fits       needs about",
        "hf auth login",
        "Plan for",
        "next       lft launch",
    ):
        assert shown in done.stdout, shown
    assert "traceback" not in done.stderr.lower()


def test_no_question_asks_for_a_token(folder: Path) -> None:
    done = init(folder, "tiny\n\n\n\n\nme/x\n\n")
    asked = [line for line in done.stdout.splitlines() if line.rstrip().endswith(":") or "]: " in line]
    assert asked
    assert not [line for line in asked if "token" in line.lower()]
    assert "token" not in (folder / "lft.yaml").read_text().replace("tokens", "").replace("the token comes from", "")


def test_a_bad_answer_is_asked_again_with_what_was_expected(folder: Path) -> None:
    (folder / "bad.jsonl").write_text("{broken\n")
    answers = (
        "ti\tny\nnot a name!\n./tyni\ntiny\n\n./suport.jsonl\nbad.jsonl\nsupport.jsonl\nmoon\nhere\nfast\nspeed\n\n"
        "noslash\nno\n"
    )
    done = init(folder, answers)
    assert done.returncode == 0, done.stdout + done.stderr
    again = [line.strip() for line in done.stdout.splitlines() if "again  " in line]
    told = "\n".join(again)
    assert len(again) == 9
    assert "text on one line is expected" in told
    assert "not a name! is not here, and is no name of the Hub; a Hub id such as" in told
    assert "./tyni does not exist; in that folder: tiny" in told
    assert "bad.jsonl:1" in told
    assert "./suport.jsonl does not exist; in that folder: support.jsonl" in told
    assert "here, slurm is expected" in told
    assert "balanced, speed, memory, quality is expected" in told
    assert "no, or owner/name is expected, for example me/support-lora" in told
    assert written(folder).data.packing


def test_the_way_rows_are_read_is_said(folder: Path) -> None:
    rows = [{"frage": f"was ist {number}?", "antwort": str(number), "id": number} for number in range(30)]
    (folder / "other.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = init(folder, "tiny\nother.jsonl\n" + ENTER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "read as frage\\nantwort" in done.stdout or "{frage}" in done.stdout


def test_unclear_columns_become_templates(folder: Path) -> None:
    rows = [{"question": f"{number}?", "answer": "a", "response": "b"} for number in range(30)]
    (folder / "other.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = init(folder, "tiny\nother.jsonl\nquestion\nresponse\n" + ENTER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "columns    columns answer, response could all answer question" in done.stdout
    data = written(folder).data
    assert (data.prompt_template, data.completion_template) == ("{question}", "{response}")


@pytest.mark.parametrize("answers", ["", "tiny\n", "tiny\nsupport.jsonl\nhere\nspeed\n"])
def test_answers_that_end_leave_nothing_behind(answers: str, folder: Path) -> None:
    before = sorted(folder.iterdir())
    done = init(folder, answers)
    assert done.returncode == 2
    assert "the answers ended at the question" in done.stderr
    assert "lft init --yes" in done.stderr
    assert sorted(folder.iterdir()) == before


def test_ctrl_c_leaves_nothing_behind(folder: Path) -> None:
    before = sorted(folder.iterdir())
    command = [sys.executable, "-c", INTERRUPTED]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        shown = b""
        while not shown.endswith(b": "):
            more = os.read(process.stdout.fileno(), 1024)
            assert more, "it ended before it asked"
            shown += more
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130
    assert "nothing was written" in told
    assert sorted(folder.iterdir()) == before


def test_a_file_that_is_there_stays_unless_overwriting_is_confirmed(folder: Path) -> None:
    (folder / "lft.yaml").write_text("mine")
    for answers, options in (
        ("no\n", ()),
        ("\n", ()),
        ("", ("--yes", "--model", "tiny", "--dataset", "support.jsonl")),
    ):
        done = init(folder, answers, *options)
        assert done.returncode == 2
        assert "stays as it is" in done.stderr
        assert (folder / "lft.yaml").read_text() == "mine"
    assert init(folder, "yes\ntiny\n" + ENTER).returncode == 0
    assert written(folder).model.name == str(folder / "tiny")
    assert init(folder, "", "--force", "--yes", "--model", "tiny", "--dataset", "support.jsonl").returncode == 0


def test_with_yes_all_that_is_missing_or_wrong_is_said_at_once(folder: Path) -> None:
    done = run_lft("init", "--yes", "--model", "./tyni", cwd=folder)
    assert done.returncode == 2
    assert "settings: 2 mistakes" in done.stderr
    assert "data.source is missing" in done.stderr
    assert "./tyni does not exist; in that folder: tiny" in done.stderr
    assert not (folder / "lft.yaml").exists()


def test_with_yes_nothing_is_asked_and_what_was_said_is_written(folder: Path) -> None:
    options = (
        "--model",
        "tiny",
        "--dataset",
        "support.jsonl",
        "--aim",
        "memory",
        "--set",
        "lora.r=4",
        "--repo-name",
        "me/x",
    )
    done = run_lft("init", "my run.yaml", "--yes", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    settings = written(folder, "my run.yaml")
    assert (settings.lora.r, settings.training.batch_size, settings.upload.repo_name) == (4, 1, "me/x")
    assert "next       lft launch 'my run.yaml'" in done.stdout
    assert "]: " not in done.stdout


def test_a_wrong_setting_is_refused_before_anything_is_written(folder: Path) -> None:
    options = ("--model", "tiny", "--dataset", "support.jsonl", "--set", "lora.r=0", "--set", "lora.rr=1")
    done = run_lft("init", "--yes", *options, cwd=folder)
    assert done.returncode == 2
    assert "2 mistakes" in done.stderr
    assert not (folder / "lft.yaml").exists()


def test_a_job_for_slurm_is_checked_and_submitted_next(folder: Path) -> None:
    done = init(folder, "tiny\n\nslurm\n2\n4\n1:30:00\ngpu\n\n\n\n\n")
    assert done.returncode == 0, done.stdout + done.stderr
    settings = written(folder)
    assert (settings.launch.nodes, settings.launch.gpus) == (2, 4)
    assert (settings.slurm.time, settings.slurm.partition, settings.slurm.account) == ("1:30:00", "gpu", None)
    assert "checked    settings, 2 nodes" in done.stdout
    assert "next       lft submit" in done.stdout


def program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)


def test_slurm_without_a_cluster_that_answers_is_not_the_default(folder: Path) -> None:
    program(folder / "sbatch", "")
    program(folder / "sinfo", "echo 'sinfo: error: unable to contact slurm controller' >&2; exit 1")
    done = init(folder, "tiny\nsupport.jsonl" + ENTER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Which [here]: " in done.stdout


def test_where_slurm_is_installed_and_no_gpu_is_a_job_is_the_default(folder: Path) -> None:
    program(folder / "sbatch", "")
    program(folder / "sinfo", "echo 'batch* up infinite 4 idle node[1-4]'")
    done = init(folder, "tiny\nsupport.jsonl\n\n2\n4" + ENTER + ENTER)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Which [slurm]: " in done.stdout
    assert written(folder).launch.nodes == 2


def test_another_projects_file_asks_only_for_what_it_has_not(folder: Path) -> None:
    (folder / "ax.yml").write_text("base_model: ./tiny\nlora_r: 4\nlora_alpha: 8\ndatasets: [{path: ./gone.jsonl}]\n")
    done = init(folder, "\n", "--from", "ax.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "again      data.source ./gone.jsonl does not exist; in that folder: support.jsonl" in done.stdout
    assert written(folder).lora.r == 4
    assert "# ax.yml:2 lora_r" in (folder / "lft.yaml").read_text()
    (folder / "lft.yaml").unlink()
    done = init(folder, "", "--from", "ax.yml", "--yes")
    assert done.returncode == 2
    assert "./gone.jsonl does not exist" in done.stderr
    assert not (folder / "lft.yaml").exists()


def test_a_file_that_says_where_alone_needs_model_and_data(folder: Path) -> None:
    (folder / "acc.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\nnum_processes: 2\nnum_machines: 1\nmixed_precision: 'no'\n"
    )
    done = run_lft("init", "--yes", "--from", "acc.yaml", "--model", "tiny", "--dataset", "support.jsonl", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert written(folder).launch.precision == "fp32"
    assert run_lft("init", "--force", "--yes", "--from", "acc.yaml", cwd=folder).returncode == 2


def test_asking_needs_no_heavy_library(folder: Path) -> None:
    heavy = ["torch", "transformers", "peft", "datasets", "accelerate"]
    script = (
        "import sys\nfrom lft.cli.main import run\n"
        "code = run(['init', '--yes', '--model', 'tiny', '--dataset', 'support.jsonl'])\n"
        f"print([code, sorted(set({heavy}) & sys.modules.keys())])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, []]"


def test_init_writes_what_launch_runs(folder: Path) -> None:
    """The way of a newcomer: two commands to an adapter."""
    options = ("--set", "training.max_steps=2", "--set", "benchmark.num_prompts=0", "--set", "launch.cpu_procs=1")
    assert run(["init", "--yes", "--model", "tiny", "--dataset", "support.jsonl", *options]) == 0
    done = run_lft("launch", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (written(folder).output_dir / "adapter_model.safetensors").exists()
