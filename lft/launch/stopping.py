"""What asks a run to stop: signals to its launcher, and the request `lft stop` leaves in the run directory."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lft.core.stop_signals import STOP_SIGNALS

REPEAT_SECONDS = 0.5
"""One Ctrl-C may come twice, to the launcher and to its group; what comes later is meant."""


class StopRequests:
    """The first request asks the ranks to save and stop; a second Ctrl-C, or `lft stop --now`, ends them at once.

    Schedulers repeat their signals, to every process of a group, and kill by themselves when their patience ends: to repeat
    one of theirs changes nothing.
    SIGHUP counts where the output goes to the terminal that hangs up; a run whose output goes elsewhere goes on.
    """

    def __init__(self, request: Path) -> None:
        self.received: list[int] = []
        self.by_user = False
        """Whether its user asked (Ctrl-C or `lft stop`), so that nothing should start the run again."""
        self._request = request
        self._first: tuple[str, float] | None = None
        """What asked first, and when."""
        self._is_listening = False
        self._heard_file = self._heard_now = False

    @contextmanager
    def listening(self, *, forget: bool = True) -> Iterator["StopRequests"]:
        """Catch the signals, and give them back to whom they belonged. A request made to an earlier launcher is forgotten.

        Who listens already goes on listening. Without `forget` a request that lies there counts: another node's agent, which
        leads, has forgotten those of before.
        """
        if self._is_listening:
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        self._is_listening = True
        if forget:
            self._request.unlink(missing_ok=True)
        hang_up = self._note if sys.stdout.isatty() else signal.SIG_IGN
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
        try:
            yield self
        finally:
            self._is_listening = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def look(self) -> int:
        """How often a stop has been asked for; also looks for the file of `lft stop`."""
        if not self._heard_now and self._request.exists():
            if not self._heard_file:
                self._heard_file = True
                self._note(signal.SIGINT, None)
            if _wants_it_now(self._request):
                self._heard_now = True
                self.received.append(signal.SIGINT)
        return len(self.received)

    def ask(self, because: str) -> None:
        """Ask for a stop after which the run is to be continued; `because` completes `1.8 s after ...`."""
        if self._first is None:
            self._first = because, time.monotonic()
            self.received.append(signal.SIGUSR1)

    def took(self) -> str:
        """`1.8 s after SIGTERM`: how long ago the first request came."""
        if self._first is None:
            return ""
        who, when = self._first
        return f"{time.monotonic() - when:.1f} s after {who}"

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._first is None:
            by_file = self._heard_file and frame is None
            self._first = "lft stop" if by_file else signal.Signals(number).name, now
        elif number != signal.SIGINT or now - self._first[1] < REPEAT_SECONDS:
            return
        self.received.append(number)
        self.by_user |= number == signal.SIGINT


def _wants_it_now(request: Path) -> bool:
    try:
        return bool(json.loads(request.read_text(encoding="utf-8")).get("now"))
    except (OSError, ValueError, AttributeError):
        return False
