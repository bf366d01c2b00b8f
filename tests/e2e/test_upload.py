"""A run that uploads, against a local Hub: what arrives, and that a failed upload does not fail the run."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import TinyModels
from tests.e2e.test_launch import write_run_file
from tests.local_hub import LocalHub

SECRET = "hf_secret_of_alice"
UPLOAD: dict[str, Any] = {"upload": {"repo_name": "alice/lora", "create_new": True, "private": True}}


def lft(hub: LocalHub, home: Path, token: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`lft ...` as a user of this Hub."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return subprocess.run(
        [sys.executable, "-m", "lft.cli.main", *arguments],
        env=environment | hub.environment(home, token=token),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_run_uploads_at_its_end_and_a_failed_upload_is_finished_later(
    tiny_models: TinyModels, tmp_path: Path, data_file: Path
) -> None:
    output_dir = tmp_path / "out"
    changes: dict[str, Any] = {"data": {"held_out": 8}, "training": {"max_steps": 2}, **UPLOAD}
    run_file = write_run_file(tmp_path / "run.yaml", tiny_models.gpt2, data_file, output_dir, **changes)
    with LocalHub({SECRET: "alice"}) as hub:
        hub.fail_next(1000, 503, path="/commit/")
        failed = lft(hub, tmp_path / "hf", SECRET, "launch", str(run_file), "--cpu-procs", "1")
        assert failed.returncode == 0, failed.stdout + failed.stderr
        assert failed.stdout.rstrip().splitlines()[-1].endswith(f"then: lft upload {output_dir}")
        assert (output_dir / "adapter_model.safetensors").exists()
    with LocalHub({SECRET: "alice"}) as hub:
        done = lft(hub, tmp_path / "hf", SECRET, "upload", str(output_dir))
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"{hub.url}/alice/lora" in done.stdout
        files = hub.files("alice/lora")
        assert hub.is_private("alice/lora")
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= files.keys()
    assert files["adapter_model.safetensors"] == (output_dir / "adapter_model.safetensors").read_bytes()
    everything = [path.read_bytes() for path in output_dir.rglob("*") if path.is_file()]
    everything += [failed.stdout.encode(), failed.stderr.encode(), done.stdout.encode(), done.stderr.encode()]
    assert not any(SECRET.encode() in content for content in everything)
    assert not any(str(tmp_path).encode() in content for content in files.values())
