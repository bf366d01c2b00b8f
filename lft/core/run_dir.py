"""Every path of a run. The run directory is the contract between launcher, workers and readers."""

from dataclasses import dataclass
from pathlib import Path

from lft.core.checkpoints import PREFIX


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

    def reports(self, job: str) -> list[tuple[int, Path]]:
        """Rank and path of the reports of a job that are there, by rank."""
        start = f"{job}-rank-"
        found = [(path.stem.removeprefix(start), path) for path in (self.folder / "reports").glob(f"{start}*.json")]
        return sorted((int(rank), path) for rank, path in found if rank.isdigit())

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

    @property
    def claims(self) -> Path:
        """Which rank takes which batch of the benchmark."""
        return self.folder / "claims"

    @property
    def answers(self) -> Path:
        """The prompts of a benchmark that is done, with what is expected and both models' answers, JSON lines."""
        return self.folder / "answers.jsonl"


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
    def answers(self) -> Path:
        """What is answered already of a benchmark that is not done."""
        return self.run / "answers"

    @property
    def report(self) -> Path:
        """The numbers of the run."""
        return self.run / "report.json"

    @property
    def results(self) -> tuple[Path, ...]:
        """What is written at the end of a run, about it."""
        return self.report, self.page, self.loss_picture

    @property
    def page(self) -> Path:
        """The run to look at, in a browser."""
        return self.run / "report.html"

    @property
    def loss_picture(self) -> Path:
        """The losses as a picture, for the model card too."""
        return self.run / "loss.png"

    @property
    def tensorboard(self) -> Path:
        """Event files for TensorBoard, if they were asked for."""
        return self.run / "tensorboard"

    @property
    def trackers(self) -> Path:
        """Which runs of the services of training.trackers this run is."""
        return self.run / "trackers.json"

    @property
    def adapter_config(self) -> Path:
        """Exists when the final adapter does: it is moved into place with it."""
        return self.output_dir / "adapter_config.json"

    @property
    def adapter(self) -> tuple[Path, ...]:
        """What makes the output directory an adapter, the file that says so first."""
        return (
            self.adapter_config,
            self.output_dir / "adapter_model.safetensors",
            self.output_dir / "lft.json",
        )

    def before_attempt(self, number: int) -> Path:
        """Where checkpoints and adapter are moved that an attempt does not go on from."""
        return self.run / f"before-attempt-{number}"

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint after `step` steps is."""
        return self.output_dir / f"{PREFIX}{step}"

    def attempts(self) -> list[Attempt]:
        """All attempts so far, the first one first."""
        found = [Attempt(path) for path in self.run.glob("attempt-*") if path.name[8:].isdigit()]
        return sorted(found, key=lambda attempt: attempt.number)

    def next_attempt(self) -> Attempt:
        """The attempt a new launch makes; its folder does not exist yet."""
        earlier = self.attempts()
        return Attempt(self.run / f"attempt-{earlier[-1].number + 1 if earlier else 0}")
