"""Uploading at the end of a run, by a thread that a stop need not wait for."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from lft.core.errors import DONE
from lft.core.run_dir import RunDir
from lft.core.settings import RunSettings
from lft.launch.outcome import Outcome
from lft.launch.ranks import POLL_SECONDS


def upload(settings: RunSettings, announce: Callable[[str], None]) -> str:
    """Upload a finished run as its settings say; returns the address. Raises UploadError."""
    from huggingface_hub.utils import disable_progress_bars

    from lft.publish.upload import upload_adapter

    disable_progress_bars()  # they and the run's own display would write over each other
    done = upload_adapter(settings.output_dir, settings.upload, announce=announce)
    if not done.is_new:
        announce(f"{done.url} has all files already; no commit was made")
    return done.url


def upload_until_stopped(settings: RunSettings, say: Callable[[str], None], is_stopped: Callable[[], bool]) -> str:
    """The address of the upload, or nothing where a stop came first. Raises UploadError."""
    ended: list[str | Exception] = []
    lines: SimpleQueue[str] = SimpleQueue()

    def work() -> None:
        try:
            ended.append(upload(settings, lines.put))
        except Exception as error:
            ended.append(error)

    # a daemon: a Hub that does not answer must not keep a stopped run alive
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive() and not is_stopped():
        thread.join(POLL_SECONDS)
        _pass_on(lines, say)
    _pass_on(lines, say)
    if ended and isinstance(ended[0], Exception):
        raise ended[0]
    return str(ended[0]) if ended else ""


def remember_upload(run_dir: RunDir, address: str) -> None:
    """Keep with the newest end of a finished run that its adapter is on the Hub: it need not be asked for, or sent, again."""
    for attempt in reversed(run_dir.attempts()):
        ended = Outcome.load(attempt.outcome)
        if ended is not None and ended.exit_code == DONE:
            ended.model_copy(update={"uploaded": address, "upload_problem": ""}).save(attempt.outcome)
            return


def _pass_on(lines: "SimpleQueue[str]", say: Callable[[str], None]) -> None:
    while True:
        try:
            say(f"upload     {lines.get_nowait()}")
        except Empty:
            return
