"""Finished runs as the launcher leaves them, without any training: an adapter, its tokenizer, a report, a plan."""

import json
import os
from pathlib import Path
from typing import Any

from lft.core.hardware import Machine
from lft.core.order import WorkerReport
from lft.core.run_dir import Attempt
from lft.core.settings import RunSettings
from lft.plan.launch_plan import make_plan

MACHINE = Machine(gpus=(), cpu_cores=1, memory_bytes=2**33, cpu_computes_bf16=False)
KEPT = {
    "adapter_config.json": b'{"r": 8}',
    "adapter_model.safetensors": b"\x00\x01weights",
    "lft.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "tokenizer.model": b"model",
    "chat_template.jinja": b"{{ messages }}",
    "README.md": b"# card\n",
}
PRIVATE_TO_THE_MACHINE = {
    "checkpoint-10/adapter_model.safetensors": b"old",
    "checkpoint-10/tokenizer.json": b"{}",
    "checkpoint-10/tokenizer.model": b"model",
    "run/settings.yaml": b"secret: path",
    "run/attempt-0/rank-0.log": b"log",
    "run/report.json": b"{}",
    "optimizer.pt": b"state",
    "notes.txt": b"mine",
}
PICTURE = b"\x89PNG picture"


def adapter_files(folder: Path) -> Path:
    """What an upload may send, its user's own card among it, and what it must not."""
    for name, content in (KEPT | PRIVATE_TO_THE_MACHINE).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def finished_run(folder: Path, upload: dict[str, Any] | None = None, weights_bytes: int = 1000) -> Path:
    """An output_dir that `lft upload` takes, with lft's own card."""
    adapter_files(folder)
    (folder / "README.md").unlink()
    (folder / "run" / "loss.png").write_bytes(PICTURE)
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(weights_bytes))
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, "base_model_name_or_path": "someone/model"}))
    values = {"model": {"name": "someone/model"}, "data": {"source": "c/d"}, "upload": upload or {}}
    plan = make_plan(RunSettings.model_validate(values | {"output_dir": folder.parent / "moved since"}), MACHINE)
    attempt = Attempt(folder / "run" / "attempt-0")
    attempt.plan.write_text(plan.model_dump_json())
    WorkerReport(ok=True, rank=0, stage="training").save(attempt.report("train", 0))
    return folder
