"""The batch script says what was asked for, whatever paths and names are; the samples in slurm/ are generated."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lft.cli.main import run
from lft.core.errors import SettingsError
from lft.core.settings import RunSettings
from lft.plan.sbatch_script import job_name, job_shape, limit_seconds, sbatch_script
from tests.conftest import REPOSITORY

PYTHON = "/shared/venv/bin/python"
GPUS = {"nodes": 1, "gpus": 8}
SAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any], int | None]] = {
    "one-node.sbatch": (GPUS, {"partition": "gpu", "time": "04:00:00"}, None),
    "many-nodes.sbatch": (
        {"nodes": 16, "gpus": 8},
        {"partition": "gpu", "account": "nlp", "time": "1-00:00:00", "modules": ["cuda/12.8"], "exclude": "gpu-a[2-3]"},
        None,
    ),
    "preemptible.sbatch": (GPUS, {"partition": "spare", "qos": "preemptible", "time": "12:00:00", "mem": "0"}, None),
    "array.sbatch": ({"gpus": 1}, {"partition": "gpu", "time": "02:00:00"}, 6),
    "cpu.sbatch": ({"nodes": 2, "cpu_procs": 4, "gpus": 0}, {"time": "60", "requeue": False}, None),
    "container.sbatch": (
        GPUS,
        {"time": "8:00:00", "container": "/images/lft.sif", "container_mounts": ["/data:/data"]},
        None,
    ),
}


def settings_for(
    launch: dict[str, Any], slurm: dict[str, Any], output_dir: str = "/shared/runs/support"
) -> RunSettings:
    values = {"model": {"name": "a/b"}, "data": {"source": "c/d"}, "output_dir": output_dir}
    return RunSettings.model_validate(values | {"launch": launch, "slurm": slurm})


def generated(name: str) -> str:
    launch, slurm, elements = SAMPLES[name]
    return sbatch_script(settings_for(launch, slurm), PYTHON, elements)


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_what_is_generated_and_a_shell_can_read_it(name: str) -> None:
    path = REPOSITORY / "slurm" / name
    assert path.read_text(encoding="utf-8") == generated(name), "run: python -m tests.plan.test_sbatch_script"
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0


def test_no_sample_is_left_over() -> None:
    assert {path.name for path in (REPOSITORY / "slurm").iterdir()} == SAMPLES.keys()


@pytest.mark.parametrize(
    "hostile", ["a b", "it's", '"', "$(touch pwned)", "x\n#SBATCH --nodes=9\ntouch pwned", "`x`", "%j\\"]
)
def test_a_path_is_only_ever_a_path(hostile: str, tmp_path: Path) -> None:
    output_dir = str(tmp_path / hostile)
    script = sbatch_script(settings_for(GPUS, {"time": "5"}, output_dir), PYTHON)
    plain = directives(sbatch_script(settings_for(GPUS, {"time": "5"}, str(tmp_path / "plain")), PYTHON))
    assert [line for line in directives(script) if "=lft-" not in line and "output" not in line] == [
        line for line in plain if "=lft-" not in line and "output" not in line
    ]
    assert {"--output=job-%j.log", "--output=/dev/null"} & set(directives(script))
    assert re.fullmatch(r"lft-[\w.-]+", job_name(Path(output_dir)), re.ASCII)
    only_path = script.partition("# One agent")[0] + f'printf %s "$run" > {tmp_path}/found'
    subprocess.run(["bash", "-c", only_path], cwd=tmp_path, env={"SLURM_SUBMIT_DIR": str(tmp_path)}, check=True)
    assert (tmp_path / "found").read_text() == f"{output_dir}/run/slurm"
    assert not (tmp_path / "pwned").exists()


def test_nothing_in_a_directive_is_left_to_be_expanded() -> None:
    assert not [line for name in SAMPLES for line in directives(generated(name)) if "$" in line or "~" in line]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("partition", "a b"),
        ("partition", "a\n#SBATCH --nodes=9"),
        ("constraint", "$(x)"),
        ("account", '"'),
        ("time", "soon"),
        ("modules", ["a; rm -rf x"]),
        ("directives", ["nodes=9"]),
        ("directives", ["--a=1\n--b"]),
        ("partitoin", "gpu"),
    ],
)
def test_what_would_break_out_of_its_line_or_is_no_setting_is_a_mistake(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        settings_for(GPUS, {name: value})


def test_every_site_setting_reaches_its_directive() -> None:
    slurm: dict[str, Any] = {
        "partition": "p",
        "account": "a",
        "qos": "q",
        "constraint": "c|d",
        "exclude": "n[1-2]",
        "reservation": "r",
    }
    slurm |= {"time": "1-2", "mem": "9G", "directives": ["--mail-type=END"]}
    lines = directives(sbatch_script(settings_for(GPUS, slurm), PYTHON))
    assert {f"--{name}={value}" for name, value in slurm.items() if name != "directives"} <= set(lines)
    assert lines[-1] == "--mail-type=END"


def test_what_the_nodes_have_must_be_said() -> None:
    with pytest.raises(SettingsError, match=r"launch.gpus  is auto"):
        job_shape(settings_for({}, {}))


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("5", 300), ("5:30", 330), ("1:0:0", 3600), ("1-2", 93600), ("1-2:3", 93780), ("1-0:0:5", 86405)],
)
def test_a_time_limit_is_read_as_sbatch_reads_it(time: str, seconds: int) -> None:
    assert limit_seconds(time) == seconds


def test_a_thousand_nodes_need_no_slurm_to_make_their_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    what = ["--model", "a/b", "--dataset", str(tmp_path / "rows.jsonl"), "--output-dir", str(tmp_path / "out")]
    assert run(["submit", *what, "--nodes", "1024", "--gpus", "8", "--time", "4:00:00", "--script-only"]) == 0
    script = (tmp_path / "out" / "run" / "slurm" / "job.sbatch").read_text()
    assert "--nodes=1024" in directives(script)
    assert str(tmp_path / "out" / "run" / "slurm" / "job.sbatch") in capsys.readouterr().out


if __name__ == "__main__":
    for sample in SAMPLES:
        (REPOSITORY / "slurm" / sample).write_text(generated(sample), encoding="utf-8")
