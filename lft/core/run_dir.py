"""Every path of a run. The run directory is the contract between launcher, workers and readers."""

import json
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "manifest.json"
"""Written last into a checkpoint: {"step": steps done, "files": {path: bytes}}."""


def is_complete(checkpoint: Path) -> bool:
    """Whether a checkpoint has its manifest, and every file in it its size."""
    try:
        files: dict[str, int] = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        return bool(files) and all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@dataclass(frozen=True, slots=True)
class Attempt:
    """The files of one attempt at a run."""

    folder: Path

    @property
    def number(self) -> int:
        """0 for the first attempt."""
        return int(self.folder.name.removeprefix("attempt-"))

    def order(self, job: str) -> Path:
        """The one order all ranks of a job read."""
        return self.folder / ("order.json" if job == "train" else f"{job}-order.json")

    @property
    def plan(self) -> Path:
        """What this attempt was planned to do."""
        return self.folder / "plan.json"

    @property
    def rendezvous(self) -> Path:
        """Where rank 0 publishes its address."""
        return self.folder / "rendezvous.json"

    def log(self, rank: int) -> Path:
        """Everything a rank prints, over all jobs of the attempt."""
        return self.folder / f"rank-{rank}.log"

    def report(self, job: str, rank: int) -> Path:
        """What a rank reports when its job is done."""
        return self.folder / "reports" / f"{job}-rank-{rank}.json"

    def failure(self, rank: int) -> Path:
        """What a rank reports when it fails, written before any clean-up."""
        return self.folder / "failures" / f"rank-{rank}.json"

    def beat(self, rank: int) -> Path:
        """A rank's stage and step, rewritten as it goes on."""
        return self.folder / "beats" / f"rank-{rank}.json"

    @property
    def launcher(self) -> Path:
        """Who started the attempt: pid, host, time."""
        return self.folder / "launcher.json"

    @property
    def outcome(self) -> Path:
        """How the attempt ended; there when it has."""
        return self.folder / "outcome.json"

    def answers(self, rank: int) -> Path:
        """A rank's share of the benchmark's answers, JSON lines."""
        return self.folder / "answers" / f"rank-{rank}.jsonl"


@dataclass(frozen=True, slots=True)
class RunDir:
    """The files of a run, below its output_dir."""

    output_dir: Path

    @property
    def run(self) -> Path:
        """Everything but adapter and checkpoints; never uploaded."""
        return self.output_dir / "run"

    @property
    def settings(self) -> Path:
        """The resolved settings, a run file that repeats the run."""
        return self.run / "settings.yaml"

    @property
    def plan(self) -> Path:
        """The newest attempt's plan as JSON."""
        return self.run / "plan.json"

    @property
    def accelerate_config(self) -> Path:
        """What starts the same ranks with `accelerate launch`."""
        return self.run / "launch_configs" / "accelerate.yaml"

    @property
    def deepspeed_config(self) -> Path:
        """What the zero strategies tell DeepSpeed; there for them only."""
        return self.run / "launch_configs" / "deepspeed.json"

    @property
    def events(self) -> Path:
        """One file per writer."""
        return self.run / "events"

    @property
    def lock(self) -> Path:
        """Held while a run uses the folder."""
        return self.run / "lock"

    @property
    def stop_request(self) -> Path:
        """There while its user wants the run to stop."""
        return self.run / "stop.json"

    @property
    def slurm(self) -> Path:
        """What concerns the run's SLURM jobs: script, settings, job ids, and where their nodes' agents meet."""
        return self.run / "slurm"

    @property
    def report(self) -> Path:
        """The numbers of the run."""
        return self.run / "report.json"

    @property
    def adapter_config(self) -> Path:
        """Exists when the final adapter does: it is moved into place with it."""
        return self.output_dir / "adapter_config.json"

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint after `step` steps is."""
        return self.output_dir / f"checkpoint-{step}"

    def complete_checkpoints(self) -> list[Path]:
        """Checkpoints with a manifest whose files are all there in full, the newest last."""
        found = [path for path in self.output_dir.glob("checkpoint-*") if path.name[11:].isdigit()]
        return sorted(filter(is_complete, found), key=lambda path: int(path.name[11:]))

    def attempts(self) -> list[Attempt]:
        """All attempts so far, the first one first."""
        found = [Attempt(path) for path in self.run.glob("attempt-*") if path.name[8:].isdigit()]
        return sorted(found, key=lambda attempt: attempt.number)

    def next_attempt(self) -> Attempt:
        """The attempt a new launch makes; its folder does not exist yet."""
        earlier = self.attempts()
        return Attempt(self.run / f"attempt-{earlier[-1].number + 1 if earlier else 0}")
