"""The agents of a run's nodes. They meet in the run directory, and the first node's leads: the others do as it says.

Every agent shows in a file of its own, rewritten as long as it lives, who and where it is. The leader writes one word after
the other: do this job of that attempt, or leave with this exit code. The others answer each job with how it went. Nothing is
asked of the network before the ranks meet, and what a node is heard of is timed by the reader's clock alone.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lft.core.errors import HANG, RendezvousError
from lft.core.files import write_text
from lft.core.order import Job, WorkerReport

BEAT_SECONDS = 2.0
LOST_SECONDS = 20.0
"""An agent that has not been heard for so long is gone: ten beats, and a network file system's delay."""
ANSWER_SECONDS = 60.0
"""How much later than the leader another node may be done with a job: more than a slow rank has to clean up."""
POLL_SECONDS = 0.1
Record = TypeVar("Record", bound=BaseModel)


class Member(BaseModel):
    """An agent, as it shows itself."""

    model_config = ConfigDict(frozen=True)

    node: int
    name: str
    address: str
    pid: int
    version: str = Field(default_factory=lambda: metadata.version("lft"))
    """Of lft."""
    beat: int = 0


class Word(BaseModel):
    """What the leader says; `number` counts its words. Without a job: leave with the exit code."""

    model_config = ConfigDict(frozen=True)

    number: int
    attempt: int = 0
    job: Job | None = None
    exit_code: int = 0


@dataclass
class Team:
    """The agents as one of them sees them; `names` are the nodes' names, in their order."""

    folder: Path
    me: Member
    names: list[str]
    may_go_on: Callable[[], None] = lambda: None
    """Called while waiting; may raise what ends the wait."""
    _heard: dict[int, tuple[int, float]] = field(default_factory=dict)
    _leaving: threading.Event = field(default_factory=threading.Event)
    _spoken: int = 0

    def __enter__(self) -> "Team":
        self.folder.mkdir(parents=True, exist_ok=True)
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()

    @property
    def others(self) -> list[int]:
        """The nodes of the other agents."""
        return [node for node in range(len(self.names)) if node != self.me.node]

    def wait_for_all(self, seconds: float) -> list[Member]:
        """Until every node's agent is here. Raises RendezvousError that names the missing nodes, or another lft."""
        nodes = range(len(self.names))
        self._wait(lambda: all(self.member(node) for node in nodes), seconds)
        missing = [self.names[node] for node in nodes if not self.member(node)]
        if missing:
            raise RendezvousError(
                f"{len(missing)} of {len(self.names)} nodes did not come within {seconds:g} s: {', '.join(missing)}",
                next_step=f"lft doctor --slurm checks them; to do without: --set slurm.exclude={','.join(missing)}",
            )
        members = [member for node in nodes if (member := self.member(node))]
        strange = [f"{member.name} has {member.version}" for member in members if member.version != self.me.version]
        if strange:
            raise RendezvousError(
                f"{self.me.name} has lft {self.me.version}, but {', '.join(strange)}",
                next_step="use one lft on all nodes, in a folder they share: --set slurm.python=/shared/venv/bin/python",
            )
        return members

    def begin(self, attempt: int, job: Job) -> None:
        """Leader: have all others do a job, of an attempt whose files are written."""
        self._say(Word(number=self._spoken + 1, attempt=attempt, job=job))

    def dismiss(self, exit_code: int) -> None:
        """Leader: send all others home with this exit code."""
        self._say(Word(number=self._spoken + 1, exit_code=exit_code))

    def next_word(self, after: int) -> Word:
        """The leader's word after that number. Raises RendezvousError where the leader has gone."""
        word: Word | None = None

        def spoken() -> bool:
            nonlocal word
            word = _load(Word, self.folder / "word.json")
            return (word is not None and word.number > after) or self.is_lost(0)

        self._wait(spoken, float("inf"))
        if word is None or word.number <= after:
            raise RendezvousError(f"{self.names[0]}, which leads, has not been heard for {LOST_SECONDS:g} s")
        return word

    def is_over(self, number: int) -> bool:
        """Whether the leader has said more since, or has gone: what it said with `number` is not wanted any more."""
        word = _load(Word, self.folder / "word.json")
        return (word is not None and word.number > number) or self.is_lost(0)

    def answer(self, number: int, has_failed: bool) -> None:
        """Say how the job of a word ended on this node."""
        write_text(self._answer(number, self.me.node), json.dumps({"failed": has_failed}))

    def failed(self) -> list[int]:
        """Leader: the nodes that have said that the job failed there, or that have gone."""
        return [node for node in self.others if self._has_failed(node) or self.is_lost(node)]

    def settle(self, seconds: float = ANSWER_SECONDS) -> list[int]:
        """Leader: wait until each other node has answered the job or is known to be lost; returns the lost ones."""
        waiting = set(self.others)

        def settled() -> bool:
            nonlocal waiting
            waiting = {node for node in waiting if not self._answer(self._spoken, node).exists()}
            return all(self.is_lost(node) for node in waiting)

        self._wait(settled, seconds)
        return sorted(node for node in waiting if self.is_lost(node))

    def is_lost(self, node: int) -> bool:
        """Whether an agent that was here has not been heard for LOST_SECONDS."""
        member, now = self.member(node), time.monotonic()
        beat = member.beat if member else -1
        before, since = self._heard.setdefault(node, (beat, now))
        if beat != before:
            self._heard[node] = (beat, now)
        return beat == before and now - since > LOST_SECONDS

    def member(self, node: int) -> Member | None:
        """The agent of a node, if it has come."""
        return _load(Member, self._file(node))

    def loss(self, nodes: Collection[int], first_rank: int, step: int | None) -> WorkerReport:
        """The report of nodes that went without a word, in the name of the first one's first rank."""
        names = ", ".join(self.names[node] for node in nodes)
        return WorkerReport(
            ok=False,
            rank=first_rank,
            stage="",
            step=step,
            node=self.names[min(nodes)],
            exit_code=HANG,
            message=f"the agent of {names} has not been heard for {LOST_SECONDS:g} s: the node is down, or it was killed; "
            f"--set slurm.exclude={names.replace(' ', '')} leaves it out",
            time_ns=time.time_ns(),
        )

    def _has_failed(self, node: int) -> bool:
        try:
            return bool(json.loads(self._answer(self._spoken, node).read_bytes())["failed"])
        except (OSError, ValueError, KeyError):
            return False

    def _say(self, word: Word) -> None:
        self._spoken = word.number
        write_text(self.folder / "word.json", word.model_dump_json())

    def _file(self, node: int) -> Path:
        return self.folder / f"node-{node}.json"

    def _answer(self, number: int, node: int) -> Path:
        return self.folder / f"answer-{number}-node-{node}.json"

    def _beat(self) -> None:
        beat = 0
        while True:
            beat += 1
            with suppress(OSError):  # a full disk must not end a run; the others will say whom they miss
                write_text(self._file(self.me.node), self.me.model_copy(update={"beat": beat}).model_dump_json())
            if self._leaving.wait(BEAT_SECONDS):
                return

    def _wait(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            self.may_go_on()
            os.listdir(self.folder)  # NFS remembers that one name was absent, up to a minute
            time.sleep(POLL_SECONDS)


def _load(kind: type[Record], path: Path) -> Record | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
