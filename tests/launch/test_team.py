"""Agents that meet in a folder: who is missing is named, who goes is noticed, and what the leader says is done once."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lft.core.errors import RendezvousError
from lft.launch import team as team_module
from lft.launch.team import Member, Team
from tests.runs import wait_for

NAMES = ["gpu-a1", "gpu-a2", "gpu-a3"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team_module, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(team_module, "LOST_SECONDS", 0.5)
    monkeypatch.setattr(team_module, "POLL_SECONDS", 0.01)


@pytest.fixture
def agent(tmp_path: Path) -> Callable[..., Team]:
    def make(node: int, version: str = "1") -> Team:
        me = Member(node=node, name=NAMES[node], address="127.0.0.1", pid=os.getpid(), version=version)
        return Team(tmp_path / "team", me, NAMES)

    return make


def test_all_nodes_find_each_other_in_their_order(agent: Callable[..., Team]) -> None:
    with agent(0) as first, agent(1) as second, agent(2):
        assert [member.name for member in first.wait_for_all(10)] == NAMES
        assert [member.name for member in second.wait_for_all(10)] == NAMES


def test_nodes_that_do_not_come_are_named(agent: Callable[..., Team]) -> None:
    with agent(0) as first, agent(1), pytest.raises(RendezvousError, match=r"1 of 3 nodes did not come .*: gpu-a3"):
        first.wait_for_all(0.5)


def test_a_node_with_another_lft_is_named(agent: Callable[..., Team]) -> None:
    with agent(0) as first, agent(1), agent(2, "2"), pytest.raises(RendezvousError, match="but gpu-a3 has 2"):
        first.wait_for_all(10)


def test_a_word_is_heard_once_and_answered(agent: Callable[..., Team]) -> None:
    with agent(0) as first, agent(1) as second, agent(2) as third:
        first.wait_for_all(10)
        first.begin(4, "train")
        word = second.next_word(after=0)
        assert (word.attempt, word.job) == (4, "train")
        assert not second.is_over(word.number)
        second.answer(word.number, has_failed=True)
        third.answer(word.number, has_failed=False)
        assert first.failed() == [1]
        assert first.settle() == []
        first.dismiss(75)
        assert second.is_over(word.number)
        last = second.next_word(after=word.number)
        assert (last.job, last.exit_code) == (None, 75)


def test_an_agent_that_goes_without_a_word_is_noticed_by_the_leader_and_named(agent: Callable[..., Team]) -> None:
    with agent(0) as first, agent(1) as second, agent(2) as third:
        first.wait_for_all(10)
        first.begin(0, "train")
        second.answer(1, has_failed=False)
        third.__exit__()
        wait_for(lambda: first.failed() == [2])
        assert first.settle() == [2]
        assert "gpu-a3" in first.loss([2], 4, None).message


def test_a_leader_that_goes_without_a_word_is_noticed_by_the_others(agent: Callable[..., Team]) -> None:
    with agent(0) as first, agent(1) as second, agent(2):
        first.wait_for_all(10)
        first.__exit__()
        with pytest.raises(RendezvousError, match="gpu-a1, which leads, has not been heard"):
            second.next_word(after=0)


def test_who_waits_may_be_called_away(agent: Callable[..., Team]) -> None:
    asked = threading.Event()

    def leave() -> None:
        asked.set()
        raise RendezvousError("called away")

    with agent(0) as first:
        first.may_go_on = leave
        with pytest.raises(RendezvousError, match="called away"):
            first.wait_for_all(60)
    assert asked.is_set()
