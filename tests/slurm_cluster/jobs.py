"""Runs submitted to a test cluster as a user would, disturbed, and followed to their end."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lft.core.beat import Beat
from lft.core.run_dir import RunDir
from lft.launch.submission import job_ids
from tests.conftest import REPOSITORY, TinyModels, demo_lines
from tests.slurm_cluster.cluster import Cluster, Kind, wait_until

DEADLINE_SECONDS = 240.0
STEPS = 30
RUN_FILE = """
model: {{name: {model}}}
data: {{source: {data}, held_out: 0}}
training: {{max_steps: {steps}, save_every: 1000, batch_size: 2, log_every: 5}}
launch: {{nodes: {nodes}, cpu_procs: 1, join_timeout_seconds: 60, precision: fp32}}
slurm: {{time: "10:00"}}
"""


@dataclass
class Site:
    """Where runs are submitted: a cluster, a model, data; and the variables a user there has."""

    cluster: Cluster
    model: Path
    data: Path
    cache: Path
    variables: dict[str, str] = field(default_factory=dict)

    python = (sys.executable, "-m", "lft.cli.main")

    def lft(self, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        """`lft ...` on the login node."""
        return self.run(*self.python, *arguments, cwd=cwd)

    def run(self, *command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Any command on the login node."""
        own = {"LFT_CACHE": str(self.cache), "PYTHONPATH": str(REPOSITORY)}
        environment = os.environ | self.cluster.variables | own | self.variables
        return subprocess.run(
            list(map(str, command)),
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )

    def submit(self, folder: Path, *options: object, nodes: int = 2, steps: int = STEPS) -> "Submitted":
        """`lft submit` in a new folder, with its run in `out`."""
        folder.mkdir(parents=True, exist_ok=True)
        run_file = folder / "run.yaml"
        run_file.write_text(RUN_FILE.format(model=self.model, data=self.data, nodes=nodes, steps=steps))
        done = self.lft("submit", run_file, "--output-dir", folder / "out", *options, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return Submitted(self, folder / "out", done.stdout)


@dataclass
class Submitted:
    """A run that was submitted."""

    site: Site
    output_dir: Path
    said: str
    seen: list[str] = field(default_factory=list)
    """The states of its newest job, in the order in which they were seen."""
    started: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    @property
    def run_dir(self) -> RunDir:
        """Its folder."""
        return RunDir(self.output_dir)

    @property
    def job_id(self) -> str:
        """Its newest job."""
        return job_ids(self.run_dir)[-1]

    @property
    def log(self) -> str:
        """What its jobs have printed."""
        logs = sorted(self.run_dir.slurm.glob("job-*.log"))
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in logs)

    def state(self) -> str:
        """The state of the newest job, which is also noted."""
        state = self.site.cluster.state(self.job_id)
        if state and self.seen[-1:] != [state]:
            self.seen.append(state)
        return state

    def wait_for_step(self, step: int, attempt: int = 0) -> None:
        """Until rank 0 has done `step` steps in an attempt."""
        path = self.run_dir.run / f"attempt-{attempt}" / "beats" / "rank-0.json"

        def is_there() -> bool:
            assert self.state() not in ("COMPLETED", "FAILED", "CANCELLED"), self.log
            beat = Beat.load(path)
            return beat is not None and beat.stage == "training" and (beat.step or 0) >= step

        wait_until(is_there, DEADLINE_SECONDS)

    def wait(self, seconds: float = DEADLINE_SECONDS) -> str:
        """Until its newest job is over; returns its state."""
        ends = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        wait_until(lambda: self.state() in ends, seconds)
        self.seconds = time.monotonic() - self.started
        return self.seen[-1]

    def done(self, seconds: float = DEADLINE_SECONDS) -> "Submitted":
        """Wait for its end, which has to be a good one."""
        assert self.wait(seconds) == "COMPLETED", self.log
        return self

    def nodes(self) -> list[int]:
        """The numbers of the nodes its job runs on, the first one leads."""
        names = self.site.cluster.ask("squeue", "-h", "-j", self.job_id, "-o", "%N")
        hosts = self.site.cluster.ask("scontrol", "show", "hostnames", names).split()
        return [int(name.removeprefix(f"{self.site.cluster.prefix}n")) for name in hosts]

    def attempts(self) -> int:
        """How many lives lft has had."""
        return len(self.run_dir.attempts())

    def last_nodes(self) -> list[int]:
        """The numbers of the nodes it was last seen on."""
        folders = sorted(self.run_dir.slurm.glob("team-*"), key=lambda path: path.stat().st_mtime_ns)
        names = [json.loads(path.read_bytes())["name"] for path in folders[-1].glob("node-*.json")]
        return [int(name.removeprefix(f"{self.site.cluster.prefix}n")) for name in names]

    def started_over(self, job_id: str) -> None:
        """Wait until another job has taken the place of this one."""
        wait_until(lambda: self.job_id != job_id)
        self.seen.clear()

    def exit_codes(self) -> list[int]:
        """How each life ended, in the leader's word."""
        paths = sorted(self.run_dir.slurm.glob("exit-*"), key=lambda path: path.stat().st_mtime_ns)
        return [int(path.read_text()) for path in paths]

    def adapter(self) -> str:
        """The digest of its weights."""
        return hashlib.sha256((self.output_dir / "adapter_model.safetensors").read_bytes()).hexdigest()

    def steps_begun_at(self) -> list[int]:
        """The step each attempt went on from."""
        found = []
        for attempt in self.run_dir.attempts():
            whence = json.loads(attempt.order("train").read_bytes())["resume_from"]
            found.append(int(Path(whence).name.removeprefix("checkpoint-")) if whence else 0)
        return found

    def preempt(self, node: int) -> None:
        """Have a job of higher priority take one of its nodes for two seconds."""
        site = self.site.cluster
        where = ["-p", "high", "-w", site.node(node), "-N1", "--cpus-per-task=4", "-t1", "-o", "/dev/null"]
        assert "Submitted" in site.ask("sbatch", *where, "--wrap", "sleep 2")


def site_of(kind: Kind, tmp_path_factory: pytest.TempPathFactory, tiny_models: TinyModels) -> Iterator[Site]:
    """A cluster of some kind, and what is needed to use it."""
    folder = tmp_path_factory.mktemp("site")
    data = folder / "data.jsonl"
    data.write_text("\n".join(demo_lines(60)) + "\n", encoding="utf-8")
    with Cluster(folder / "slurm", kind) as cluster:
        yield Site(cluster, tiny_models.llama, data, folder / "cache")


def without_scontrol(folder: Path) -> str:
    """A line for the batch script, after which scontrol refuses to do anything."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "scontrol").write_text("#!/bin/sh\nexit 1\n")
    (programs / "scontrol").chmod(0o755)
    return f"export PATH={programs}:$PATH"


def kill(pids: Sequence[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Signal processes, of which there must be some."""
    assert pids
    for pid in pids:
        os.kill(pid, number)
