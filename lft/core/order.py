"""What passes between launcher and worker: one order in for all ranks of a job, one report out of each."""

import socket
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from lft.core.errors import TRAINING
from lft.core.files import write_text
from lft.core.settings import Precision, RunSettings, Strategy

Job = Literal["train", "benchmark"]
STOPPED_EARLY: dict[Job, str] = {
    "train": "stopped before training; nothing was lost",
    "benchmark": "stopped before all was answered; the adapter is saved, and what was answered is kept",
}
"""What a stop means before there is anything of the job to save."""


class WorkerOrder(BaseModel):
    """The same for all ranks; a rank knows itself from RANK, LOCAL_RANK, WORLD_SIZE and LOCAL_WORLD_SIZE."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: Job
    attempt_dir: Path
    settings: RunSettings
    strategy: Strategy
    world_size: int
    device: Literal["cpu", "cuda"]
    precision: Precision | None
    """None: the worker decides, on a GPU by the checkpoint, on a CPU by measuring."""
    accumulation: int
    """Micro-batches per rank and step."""
    deepspeed: dict[str, Any] | None = None
    """The content of deepspeed.json, values final; for zero2 and zero3."""
    resume_from: Path | None = None
    """A complete checkpoint to go on from."""
    adapter: Path | None = None
    """Folder of the adapter to benchmark; None: output_dir."""

    def terms(self) -> dict[str, Any]:
        """What the orders of all nodes must say alike, for their ranks to train together: JSON values by their names.

        Of model and data the last part of the path, since another node may have mounted the same files elsewhere.
        """
        own = {"strategy", "world_size", "device", "precision", "accumulation"}
        values = self.model_dump(mode="json", include=own)
        trained = ("model.", "data.", "lora.", "training.")
        values |= {key: value for key, value in self.settings.by_name().items() if key.startswith(trained)}
        values["model.name"] = Path(self.settings.model.name).name
        names = [[Path(each.source).name, each.weight] for each in self.settings.data.sources]
        values["data.source"] = names if len(names) > 1 else names[0][0]
        return values | {"resume_from": self.resume_from.name if self.resume_from else None}

    def save(self, path: Path) -> None:
        """Write the order as JSON."""
        write_text(path, self.model_dump_json(indent=1))

    @classmethod
    def load(cls, path: Path) -> "WorkerOrder":
        """Read an order. Raises OSError or pydantic.ValidationError."""
        return cls.model_validate_json(path.read_bytes())


class WorkerReport(BaseModel):
    """A rank's last word about a job."""

    # JSON has no word for what is no number, and a score may be none: NaN is written as Python's json does
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    ok: bool
    rank: int
    stage: str
    step: int | None = None
    """Steps done when it was written; None outside training."""
    node: str = ""
    """The host's name."""
    memory_bytes: int = 0
    """The most memory this process has held."""
    exit_code: int = 0
    error_class: str = ""
    message: str = ""
    traceback: str = ""
    is_victim: bool = False
    """The error says that another rank went away."""
    metrics: dict[str, Any] = {}
    time_ns: int = 0

    def save(self, path: Path) -> None:
        """Write the report as JSON."""
        write_text(path, self.model_dump_json(indent=1))

    @classmethod
    def load(cls, path: Path) -> "WorkerReport":
        """Read a report. Raises OSError or pydantic.ValidationError."""
        return cls.model_validate_json(path.read_bytes())

    @classmethod
    def of_failure(
        cls,
        rank: int,
        stage: str,
        error: BaseException,
        traceback: str,
        *,
        step: int | None = None,
        memory_bytes: int = 0,
    ) -> "WorkerReport":
        """The report of an exception."""
        message = str(error)
        if isinstance(error, SystemExit):
            message = f"sys.exit({message}) was called before the job was done"
        return cls(
            ok=False,
            rank=rank,
            stage=stage,
            step=step,
            node=socket.gethostname(),
            memory_bytes=memory_bytes,
            exit_code=getattr(error, "exit_code", TRAINING),
            error_class=type(error).__name__,
            message=_writable(message),
            traceback=_writable(traceback),
            is_victim=_another_rank_left(str(error)),
            time_ns=time.time_ns(),
        )


# What gloo and NCCL say on the ranks that did nothing wrong; seen with torch 2.13 (gloo) and in its source (NCCL).
_VICTIM_WORDS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
    "NCCL communicator was aborted",
    "remote process exited",
    "Socket Timeout",
)


def _writable(text: str) -> str:
    """Without halves of characters, which names of files that are no UTF-8 bring into messages."""
    return text.encode("utf-8", "backslashreplace").decode()


def _another_rank_left(message: str) -> bool:
    return any(words in message for words in _VICTIM_WORDS)
