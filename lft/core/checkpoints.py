"""What makes a folder a checkpoint: a manifest with the digest of every other file, written last.

A run that dies while it saves leaves a folder without a manifest, under another name. What is damaged later is found when
the files are compared with their digests; only a checkpoint that passes is gone on from.
"""

import hashlib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lft.core.files import write_text
from lft.core.settings import Strategy

MANIFEST = "manifest.json"
PREFIX = "checkpoint-"
FORMAT = 2
"""Of the files below a checkpoint; raised when an older lft could not go on from it."""


class FileDigest(BaseModel):
    """What a file of a checkpoint was when it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileDigest":
        """Read the file. Raises OSError."""
        with path.open("rb") as stream:
            return cls(bytes=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


class Manifest(BaseModel):
    """The content of manifest.json: `files` by their names, and the facts of the run that decide where it goes on."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    step: int
    """Steps done since the run began."""
    items_seen: int
    """The cursor: rows, or packs, trained since the run began."""
    items: int
    """Rows, or packs, of an epoch."""
    global_batch: int
    world_size: int
    strategy: Strategy
    precision: str
    held_out_loss: float | None = None
    """Of this step, where it was measured."""
    files: dict[str, FileDigest]

    @classmethod
    def load(cls, checkpoint: Path) -> "Manifest":
        """Read it. Raises OSError, or ValueError where it is damaged."""
        return cls.model_validate_json((checkpoint / MANIFEST).read_bytes())

    def save(self, checkpoint: Path) -> None:
        """Write it; from then on the folder is a checkpoint."""
        write_text(checkpoint / MANIFEST, self.model_dump_json(indent=1) + "\n")


def is_complete(checkpoint: Path) -> bool:
    """Whether it has its manifest, and every file in it its size; a look that costs no reading."""
    try:
        files = Manifest.load(checkpoint).files
        return bool(files) and all((checkpoint / name).stat().st_size == file.bytes for name, file in files.items())
    except (OSError, ValueError):
        return False


def problem(checkpoint: Path) -> str:
    """Why the run cannot go on from this checkpoint, in words; nothing where every file is what was written."""
    try:
        manifest = Manifest.load(checkpoint)
    except FileNotFoundError:
        return "is not complete: its manifest is missing"
    except (OSError, ValidationError, ValueError):
        return f"has a damaged {MANIFEST}, or one of another version of lft"
    if manifest.format != FORMAT:
        return f"is in format {manifest.format} of another version of lft; this one reads format {FORMAT}"
    for name, written in manifest.files.items():
        try:
            found = FileDigest.of(checkpoint / name)
        except FileNotFoundError:
            return f"has lost {name}"
        except OSError as error:
            return f"cannot be read: {name}: {error.strerror}"
        if found.bytes != written.bytes:
            return f"is damaged: {name} has {found.bytes:,} of {written.bytes:,} bytes"
        if found != written:
            return f"is damaged: {name} is not what was written"
    return ""


def to_remove(output_dir: Path, keep_last: int, *, keep_best: bool) -> list[Path]:
    """The complete checkpoints but for the newest `keep_last` and, if asked for, the one with the lowest held-out loss."""
    found = {path: Manifest.load(path).held_out_loss for path in complete(output_dir)}
    measured = [path for path, loss in found.items() if loss is not None]
    best = min(measured, key=lambda path: found[path] or 0.0, default=None) if keep_best else None
    return [path for path in list(found)[:-keep_last] if path != best]


def step_of(checkpoint: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix(PREFIX))


def folders(output_dir: Path) -> list[Path]:
    """Every folder named like a checkpoint, whole or not, the newest last."""
    found = [path for path in output_dir.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of)


def complete(output_dir: Path) -> list[Path]:
    """The folders that have a manifest, and every file of it in its size; the newest last."""
    return list(filter(is_complete, folders(output_dir)))
