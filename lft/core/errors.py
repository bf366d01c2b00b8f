"""Every error a user can meet, and the exit code of each.

LftError                     70  also the class for a bug in lft itself
|- SettingsError              2  usage or settings; carries all mistakes at once
|- PreflightError             3  hardware, a model or a data set that cannot be had
|  `- DataError               3  a file or row that cannot be used; names file and line
|- CallOrderError            64  a method of LLMFineTuner called before the one it needs
|- AdapterError              64  the trained adapter is damaged or not finite, and was not kept
|- UploadError               64  the Hub refused or could not be reached
|- OutOfMemoryError          67  also a RuntimeError, as the documented API promises
|- RendezvousError           66  ranks did not all join
`- StoppedError              75  saved, please continue (130 when its user asked for it)
"""

from collections.abc import Sequence

DONE = 0
SETTINGS = 2
PREFLIGHT = 3
TRAINING = 64
HANG = 65
RENDEZVOUS = 66
OUT_OF_MEMORY = 67
BUG = 70
SAVED = 75
STOPPED = 130
FORCED = 128

NEXT = "\n  next   "
"""Between an error and what to type."""

EXIT_CODES: dict[int, str] = {
    DONE: "done",
    SETTINGS: "usage or settings; a local path that does not exist is one",
    PREFLIGHT: "preflight: hardware, a model or a data set that cannot be had",
    TRAINING: "training raised",
    HANG: "a rank made no progress, or two attempts made no step",
    RENDEZVOUS: "ranks did not all join",
    OUT_OF_MEMORY: "out of memory",
    BUG: "a bug in lft",
    SAVED: "stopped by a signal, saved; to be continued",
    STOPPED: "stopped by its user (Ctrl-C)",
}


class LftError(Exception):
    """What went wrong in one sentence; `next_step` is what to type or change."""

    exit_code = BUG

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message}{NEXT}{self.next_step}" if self.next_step else self.message


class SettingsError(LftError):
    """All mistakes of a run file and its flags; `mistakes` are lines of the form `place  what is wrong`."""

    exit_code = SETTINGS

    def __init__(self, mistakes: Sequence[str], *, source: str = "the command line", next_step: str = "") -> None:
        self.mistakes = tuple(mistakes)
        count = "1 mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        lines = "".join(f"\n  {mistake}" for mistake in self.mistakes)
        super().__init__(f"settings: {count} in {source}{lines}", next_step=next_step)


class PreflightError(LftError):
    """Something the run needs cannot be had here."""

    exit_code = PREFLIGHT


class DataError(PreflightError):
    """A data file or row that cannot be used; the message starts with `file:line` where there is one."""


class CallOrderError(LftError):
    """A method was called before the one it builds on; the message names the missing call."""

    exit_code = TRAINING


class AdapterError(LftError):
    """The adapter that was trained is damaged, or holds values that are not finite; nothing of it was kept."""

    exit_code = TRAINING


class UploadError(LftError):
    """The Hub refused the upload or could not be reached. Never contains the token."""

    exit_code = TRAINING


class RendezvousError(LftError):
    """There are fewer or more ranks than the order is for, or one of them never came."""

    exit_code = RENDEZVOUS


class OutOfMemoryError(LftError, RuntimeError):
    """Memory ran out; the message contains "out of memory", which the documented API tells callers to look for."""

    exit_code = OUT_OF_MEMORY


class StoppedError(LftError):
    """The run stopped on request, between two steps; what was saved is named in the message."""

    exit_code = SAVED
