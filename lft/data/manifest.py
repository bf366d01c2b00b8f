"""What a finished preparation says of itself: written last, so that a folder with a manifest is whole."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from lft.core.files import write_text
from lft.data.example import Style
from lft.data.shard_format import BlockCounts


class HowWritten(BaseModel):
    """How rows became tokens: what a reader of the shards, and generation, must know of it."""

    model_config = ConfigDict(frozen=True)

    columns: tuple[str, ...]
    style: Style
    max_length: int
    """Tokens at which rows were cut."""
    pad_is_end: bool
    """Whether the tokenizer pads with its end token."""
    words: tuple[str, ...]
    """The choices made, a line each."""
    chat_template: str | None
    """The template the tokenizer has to carry where it is not its own."""


class Manifest(HowWritten):
    """The whole folder in numbers."""

    blocks: int
    rows: int
    kept: int
    empty: int
    bad: tuple[tuple[int, int, str], ...]
    """File, where and what is wrong of each row left out."""
    masked: int
    """Rows whose completion lies wholly behind max_length; they are never trained."""

    @classmethod
    def of(cls, counts: Sequence[BlockCounts], how: HowWritten) -> "Manifest":
        """The sum over all blocks."""
        return cls(
            **how.model_dump(),
            blocks=len(counts),
            rows=sum(each.rows for each in counts),
            kept=sum(each.kept for each in counts),
            empty=sum(each.empty for each in counts),
            bad=tuple(bad for each in counts for bad in each.bad),
            masked=sum(each.masked for each in counts),
        )


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder, or None where the preparation has not been finished."""
    try:
        return Manifest.model_validate_json(_path(folder).read_bytes())
    except (OSError, ValidationError):
        return None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Declare a folder whole."""
    write_text(_path(folder), manifest.model_dump_json(indent=1))


def remove_manifest(folder: Path) -> None:
    """Declare a folder unfinished again."""
    _path(folder).unlink(missing_ok=True)


def _path(folder: Path) -> Path:
    return folder / "manifest.json"
