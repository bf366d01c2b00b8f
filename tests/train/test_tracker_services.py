"""wandb, mlflow and trackio themselves: a run that was stopped and goes on is one run of each, with every step, and ended."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from lft.core.run_dir import RunDir
from lft.demo.tiny import make_tiny
from tests.runs import wait_for

PYTHON = Path(sys.prefix, "trackers", "bin", "python")
"""A second environment over this one: MLflow wants other versions of packages that are pinned here."""
STEPS = 60
DEADLINE_SECONDS = 120.0
READ = """
import json, sqlite3, struct, sys
from contextlib import closing
from pathlib import Path
from wandb.proto.wandb_internal_pb2 import Record

def records(path):
    # LevelDB's log format, behind a header of 7 bytes: blocks of 32 KiB with pieces of checksum, length, type
    content, at, found = path.read_bytes(), 7, b""
    while at < len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        found += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield Record.FromString(found)
            found = b""

def rows(path, query):
    with closing(sqlite3.connect(path)) as base:
        return base.execute(query).fetchall()

folder = Path(sys.argv[1])
wandb = []
for path in sorted(folder.glob("out/run/wandb/offline-run-*/*.wandb")):
    run = {"id": "", "exit": None, "losses": {}}
    for record in records(path):
        if record.HasField("run"):
            run["id"] = record.run.run_id
        if record.HasField("exit"):
            run["exit"] = record.exit.exit_code
        if record.HasField("history"):
            item = {each.key or "/".join(each.nested_key): json.loads(each.value_json) for each in record.history.item}
            if "train/loss" in item:
                run["losses"][item["train/global_step"]] = item["train/loss"]
    wandb.append(run)
mlflow = {
    "runs": rows(folder / "mlflow.db", "select run_uuid, status from runs"),
    "losses": dict(rows(folder / "mlflow.db", "select step, value from metrics where key = 'loss'")),
}
told = rows(next((folder / "trackio").glob("*.db")), "select run_name, metrics from metrics")
told = [(name, json.loads(values)) for name, values in told]
trackio = {
    "runs": sorted({name for name, _ in told}),
    "losses": {values["train/global_step"]: values["train/loss"] for _, values in told if "train/loss" in values},
}
print(json.dumps({"wandb": wandb, "mlflow": mlflow, "trackio": trackio}))
"""


@pytest.mark.skipif(not PYTHON.exists(), reason="needs .venv/trackers, which scripts/trackers makes")
def test_a_run_that_was_stopped_and_goes_on_is_one_run_of_each_service_with_every_step(tmp_path: Path) -> None:
    make_tiny(tmp_path)
    out = RunDir(tmp_path / "out")
    values = {
        "model": {"name": "./model"},
        "data": {"source": "./rows.jsonl", "held_out": 8},
        "training": {"max_steps": STEPS, "log_every": 1, "trackers": ["wandb", "mlflow", "trackio", "tensorboard"]},
        "launch": {"cpu_procs": 2},
        "benchmark": {"num_prompts": 0},
        "output_dir": "out",
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB", "MLFLOW"))}
    environment |= {"WANDB_MODE": "offline", "TRACKIO_DIR": str(tmp_path / "trackio")}
    options: dict[str, Any] = {"cwd": tmp_path, "env": environment, "text": True}
    lft = [str(PYTHON), "-m", "lft.cli.main"]

    first = subprocess.Popen([*lft, "launch", "run.yaml"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    logs = out.events / "rank-0.jsonl"
    wait_for(lambda: logs.exists() and '"kind": "log"' in logs.read_text(encoding="utf-8"), DEADLINE_SECONDS)
    first.send_signal(signal.SIGTERM)
    said, _ = first.communicate(timeout=DEADLINE_SECONDS)
    assert first.returncode == 75, said
    assert len(re.findall(r"tracker +(wandb|mlflow|trackio): \S", said)) == 3

    second = subprocess.run([*lft, "resume", "out"], capture_output=True, check=False, **options)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "is told nothing" not in second.stdout
    read = subprocess.run([str(PYTHON), "-c", READ, str(tmp_path)], capture_output=True, check=True, **options)
    told, expected = json.loads(read.stdout), {str(step) for step in range(1, STEPS + 1)}

    before, after = told["wandb"]
    assert before["id"] == after["id"] != ""
    assert [before["exit"], after["exit"]] == [0, 0]
    assert (before["losses"] | after["losses"]).keys() == expected
    ((_, status),) = told["mlflow"]["runs"]
    assert status == "FINISHED"
    assert told["mlflow"]["losses"].keys() == expected
    assert len(told["trackio"]["runs"]) == 1
    assert told["trackio"]["losses"].keys() == expected
    assert (before["losses"] | after["losses"]) == pytest.approx(told["trackio"]["losses"])
    assert not (tmp_path / "wandb").exists()
