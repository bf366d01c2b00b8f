"""Trying again: how long, how often, and that the client is left as it was."""

import pytest
from huggingface_hub.utils import get_session

from lft.publish import patience
from lft.publish.patience import TroubleError, persistently, reporting_trouble


def test_trouble_is_waited_for_longer_each_time_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(patience, "sleep", waits.append)
    said: list[str] = []

    def attempt() -> str:
        try:
            raise TroubleError("the Hub answered 503")
        except TroubleError as trouble:
            raise RuntimeError("as the client says it of a large file") from trouble

    with pytest.raises(RuntimeError):
        persistently(attempt, said.append)
    assert waits == [2, 4, 8, 16, 32]
    assert said[1] == "the Hub answered 503; trying again in 4 s (2 of 5)"


def test_what_is_no_trouble_is_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "sleep", lambda seconds: pytest.fail("waited"))

    def attempt() -> str:
        raise ValueError("a mistake")

    with pytest.raises(ValueError, match="a mistake"):
        persistently(attempt, pytest.fail)


def test_the_client_is_left_as_it_was() -> None:
    session = get_session()
    before = session.send, session.timeout
    with reporting_trouble():
        assert session.timeout.read == patience.TIME_LIMIT_SECONDS[1]
    assert (session.send, session.timeout) == before
