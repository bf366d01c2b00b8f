"""Asking a running launcher, from any host that sees the run's folder, to save and stop."""

import json
import os
import socket
import time
from dataclasses import dataclass

from lft.core.files import write_text
from lft.core.run_dir import RunDir
from lft.launch.follow import is_alive

POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class StopRequest:
    """A request that lies in the run's folder while its user wants the run to stop."""

    run_dir: RunDir
    text: str

    @classmethod
    def make(cls, run_dir: RunDir, *, now: bool) -> "StopRequest":
        """Ask for it; `now`: at once, without saving. Raises OSError where the folder cannot be written."""
        who = {"time_ns": time.time_ns(), "host": socket.gethostname(), "pid": os.getpid()}
        request = cls(run_dir, json.dumps(who | ({"now": True} if now else {})))
        request._write()
        return request

    def wait(self, seconds: float) -> bool:
        """Wait until the launcher has let go of the run, at most so long; whether it has."""
        deadline = time.monotonic() + seconds
        while is_alive(self.run_dir):
            if time.monotonic() >= deadline:
                return False
            if not self.run_dir.stop_request.exists():
                self._write()  # a launcher that had just started has taken it for one made to an earlier launcher
            time.sleep(POLL_SECONDS)
        return True

    def withdraw(self) -> None:
        """Remove the request, which must not stop the next attempt. One of another stays."""
        path = self.run_dir.stop_request
        try:
            if path.read_text(encoding="utf-8") == self.text:
                path.unlink()
        except FileNotFoundError:
            return

    def _write(self) -> None:
        write_text(self.run_dir.stop_request, self.text)
