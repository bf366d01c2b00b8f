"""A run that uploads, against a local Hub: what arrives, and that a failed upload does not fail the run."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import TinyModels
from tests.e2e.test_launch import write_run_file
from tests.local_hub import LocalHub
from tests.runs import wait_for

SECRET = "hf_secret_of_alice"
UPLOAD: dict[str, Any] = {"upload": {"repo_name": "alice/lora", "create_new": True, "private": True}}


def environment_of(hub: LocalHub, home: Path, token: str) -> dict[str, str]:
    """That of a user of this Hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    return kept | hub.environment(home, token=token)


def lft(hub: LocalHub, home: Path, token: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`lft ...` as a user of this Hub."""
    return subprocess.run(
        [sys.executable, "-m", "lft.cli.main", *arguments],
        env=environment_of(hub, home, token),
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
    launch = ("launch", str(run_file), "--cpu-procs", "1")
    with LocalHub({SECRET: "alice"}) as hub:
        hub.fail_next(1, 503, path="/preupload/")
        hub.fail_next(1, 403, path="/commit/", message="Storage is full")
        failed = lft(hub, tmp_path / "hf", SECRET, *launch)
        assert failed.returncode == 0, failed.stdout + failed.stderr
        assert "  upload     the Hub answered 503; trying again in 2 s (1 of 5)\n" in failed.stdout
        last = failed.stdout.rstrip().splitlines()[-1]
        assert "problem    the token may not write to alice/lora: Storage is full; hf auth login" in last
        assert last.endswith(f"then: lft upload {output_dir}")
        assert (output_dir / "adapter_model.safetensors").exists()

        hub.stall_next(1, "/commit/")
        asked = len(hub.requests)
        stopped = stop_launch_when(hub, tmp_path / "hf", launch, lambda: "/commit/" in str(hub.requests[asked:]))
        assert "/_large/" not in str(hub.requests[asked:]), "what has arrived is not sent again"
        assert stopped.returncode == 130, stopped.stdout + stopped.stderr
        assert "stopped while uploading; the adapter is saved" in stopped.stdout
        assert f"  next       lft upload {output_dir}\n" in stopped.stdout
        assert hub.files("alice/lora") == {}, "all of an upload or nothing of it"

        done, again = (lft(hub, tmp_path / "hf", SECRET, "upload", str(output_dir)) for _ in range(2))
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"uploaded   {hub.url}/alice/lora (private, " in done.stdout
        assert f"unchanged  {hub.url}/alice/lora (private, " in again.stdout
        files = hub.files("alice/lora")
        assert len(hub.commits("alice/lora")) == 2
        assert hub.is_private("alice/lora")
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= files.keys()
    assert files["adapter_model.safetensors"] == (output_dir / "adapter_model.safetensors").read_bytes()
    assert b"| held-out loss |" in files["README.md"]
    everything = [path.read_bytes() for path in output_dir.rglob("*") if path.is_file()]
    for process in (failed, stopped, done, again):
        everything += [process.stdout.encode(), process.stderr.encode()]
    assert not any(SECRET.encode() in content for content in everything)
    assert not any(str(tmp_path).encode() in content for content in files.values())


def stop_launch_when(
    hub: LocalHub, home: Path, arguments: tuple[str, ...], condition: Callable[[], bool]
) -> "subprocess.CompletedProcess[str]":
    """`lft launch ...`, stopped by Ctrl-C once `condition` holds."""
    command = [sys.executable, "-m", "lft.cli.main", *arguments]
    environment, pipe = environment_of(hub, home, SECRET), subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            wait_for(condition, 60)
            process.send_signal(signal.SIGINT)
            out, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, out, errors)
