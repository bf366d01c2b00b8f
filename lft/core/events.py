"""What happens in a run, as JSON lines: one file per writer, one line per state change or logged step."""

import json
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, Literal

Kind = Literal["stage", "notice", "warning", "total", "step", "log", "evaluated", "saved", "done"]


@dataclass(frozen=True, slots=True)
class Event:
    """`kind` says what happened; `data` holds its facts, of JSON types only; `time` is in seconds since the epoch."""

    writer: str
    kind: Kind
    data: dict[str, Any] = field(default_factory=dict)
    time: float = 0.0


class EventWriter:
    """Appends events to one file. A line is written whole or, at a crash, is the last and left out by readers."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.writer = path.stem
        self._stream = path.open("a", encoding="utf-8")
        self._lock = Lock()  # checkpoints are written, and told of, in a thread

    def write(self, kind: Kind, **data: Any) -> None:
        """Append one event and flush it, so that a reader sees it at once."""
        event = Event(self.writer, kind, data, time.time())
        with self._lock:
            self._stream.write(json.dumps(asdict(event)) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Close the file; later writes are an error."""
        self._stream.close()


class EventTail:
    """Reads the new events of a folder at each call, file by file; what was there before the start is skipped."""

    def __init__(self, folder: Path, writers: Collection[str] | None = None) -> None:
        """`writers`: only of these; None: of all."""
        self.folder, self.writers = folder, writers
        self._read_to: dict[Path, int] = {path: path.stat().st_size for path in self._files()}

    def new_events(self) -> list[Event]:
        """All whole lines written since the last call, in order of time."""
        found = [event for path in self._files() for event in self._new_in(path)]
        return sorted(found, key=lambda event: event.time)

    def _files(self) -> list[Path]:
        if self.writers is None:
            return sorted(self.folder.glob("*.jsonl"))
        return [path for writer in self.writers if (path := self.folder / f"{writer}.jsonl").exists()]

    def _new_in(self, path: Path) -> list[Event]:
        with path.open("rb") as stream:
            stream.seek(self._read_to.get(path, 0))
            text = stream.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._read_to[path] = self._read_to.get(path, 0) + len(whole)
        return [event for line in whole.splitlines() if (event := _parsed(line)) is not None]


def _parsed(line: bytes) -> Event | None:
    """An event, or None for a line that is none: progress is never worth a run."""
    try:
        return Event(**json.loads(line))
    except (ValueError, TypeError):
        return None
