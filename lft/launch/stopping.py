"""What asks a run to stop: signals to its launcher, and the request `lft stop` leaves in the run directory."""

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

# SLURM and preempting schedulers send the last two; untreated they would kill the launcher (pytorch#154849)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopRequests:
    """The first request asks the ranks to save and stop, the second ends them at once.

    SIGHUP counts where the output goes to the terminal that hangs up; a run whose output goes elsewhere goes on.
    """

    def __init__(self, request: Path) -> None:
        self.received: list[int] = []
        self.because = ""
        """What asked first, for people."""
        self.by_user = False
        """Whether its user asked (Ctrl-C or `lft stop`), so that nothing should start the run again."""
        self._request = request
        self._heard_file = self._heard_now = False

    @contextmanager
    def listening(self, *, forget: bool = True) -> Iterator["StopRequests"]:
        """Catch the signals, and give them back to whom they belonged. A request made to an earlier launcher is forgotten."""
        if forget:
            self._request.unlink(missing_ok=True)
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        hang_up = self._note if sys.stdout.isatty() else signal.SIG_IGN
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, hang_up)
        try:
            yield self
        finally:
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
                self._note(signal.SIGINT, None)
        return len(self.received)

    def ask(self, because: str) -> None:
        """Ask for a stop after which the run is to be continued."""
        self.because = self.because or because
        self._note(signal.SIGUSR1, None)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.because = self.because or signal.Signals(number).name
        self.received.append(number)
        self.by_user |= number == signal.SIGINT


def _wants_it_now(request: Path) -> bool:
    try:
        return bool(json.loads(request.read_text(encoding="utf-8")).get("now"))
    except (OSError, ValueError, AttributeError):
        return False
