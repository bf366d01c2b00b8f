"""Patience with a Hub in trouble: every request gets a time limit, and an upload that meets trouble is tried again, aloud.

The client repeats some requests by itself, silently but for log lines with addresses; others, the commit and the creation of
a repository among them, it asks once; and it waits for an answer without end. So its requests report trouble in one
way, which it does not catch, and the whole upload, each step of which may be repeated, is tried again.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session, parse_ratelimit_headers

TIME_LIMIT_SECONDS = (15.0, 120.0, 120.0, None)
"""To connect; for a piece of the answer; to send a piece; for a free connection. A large commit may take a minute."""
TRIES_AFTER_THE_FIRST = 5
FIRST_WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 300.0
"""The Hub counts requests over five minutes; one that asks for more patience than that is believed to be closed."""
TROUBLE = frozenset({408, 429, 500, 502, 503, 504})
CHANGED_MEANWHILE = frozenset({409, 412})
"""Answers to a commit: another one was faster, and the next try begins from it."""
NETWORK_ERRORS = frozenset({"TimeoutException", "NetworkError", "RemoteProtocolError"})
"""By name, since the client's HTTP library is httpx or httpx2, by version."""

Result = TypeVar("Result")


class TroubleError(Exception):
    """The Hub, or the way there, is in trouble that may pass. `wait_seconds` is how long the Hub asks to wait, or 0."""

    def __init__(self, words: str, wait_seconds: float = 0.0) -> None:
        super().__init__(words)
        self.words, self.wait_seconds = words, wait_seconds


@contextmanager
def reporting_trouble() -> Iterator[None]:
    """Within, requests of the client end in time, and raise TroubleError where trying again may help."""
    session: Any = get_session()
    send, time_limit = session.send, session.timeout
    http_error = cast("type[Exception]", HfHubHTTPError.__bases__[0])  # that of the HTTP library

    def send_once(request: Any, **options: Any) -> Any:
        try:
            response = send(request, **options)
        except http_error as error:
            if NETWORK_ERRORS & {each.__name__ for each in type(error).__mro__}:
                raise TroubleError(_network_words(error)) from None
            raise
        _check(response)
        return response

    session.send, session.timeout = send_once, TIME_LIMIT_SECONDS
    try:
        yield
    finally:
        session.send, session.timeout = send, time_limit


def _network_words(error: Exception) -> str:
    kinds = {each.__name__ for each in type(error).__mro__}
    if kinds & {"ConnectError", "ConnectTimeout"}:
        reason = re.sub(r"^\[.*?\] *", "", str(error)) or "no answer"  # "[Errno 111] Connection refused"
        return f"the Hub cannot be reached ({reason})"
    if "TimeoutException" in kinds:
        return f"the Hub did not answer within {TIME_LIMIT_SECONDS[1]:g} s"
    return "the connection to the Hub broke"


def _check(response: Any) -> None:
    status, is_commit = response.status_code, "/commit/" in response.request.url.path
    # the client itself would ask again at once, without end
    is_busy = status == 409 and "operation is in progress" in response.text
    if status in TROUBLE or is_busy or (is_commit and status in CHANGED_MEANWHILE):
        raise TroubleError(f"the Hub answered {status}", _wait_asked_for(response.headers))


def _wait_asked_for(headers: Any) -> float:
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds + 1.0
    asked = headers.get("Retry-After", "")
    return float(asked) if asked.isdecimal() else 0.0


def persistently(attempt: Callable[[], Result], announce: Callable[[str], None]) -> Result:
    """What `attempt` returns, which is called again after trouble, with waits of 2 to 32 seconds, each announced.

    Raises whatever else `attempt` raises, and its error when all tries have met trouble.
    """
    for number in range(1, TRIES_AFTER_THE_FIRST + 1):
        try:
            return attempt()
        except Exception as error:
            trouble = trouble_of(error)
            if trouble is None or trouble.wait_seconds > LONGEST_WAIT_SECONDS:
                raise
            seconds = max(FIRST_WAIT_SECONDS * 2 ** (number - 1), trouble.wait_seconds)
            announce(f"{trouble.words}; trying again in {seconds:g} s ({number} of {TRIES_AFTER_THE_FIRST})")
            sleep(seconds)
    return attempt()


sleep: Callable[[float], None] = time.sleep
"""A name of its own, so that tests need not wait."""


def trouble_of(error: BaseException | None) -> TroubleError | None:
    """The trouble an error comes from; the client puts errors of its large files into others."""
    while error is not None and not isinstance(error, TroubleError):
        error = error.__cause__
    return error
