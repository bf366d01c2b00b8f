"""lft doctor names the node at fault, and says nothing where nothing is wrong."""

from typing import Any

import pytest

from lft.launch.doctor import NodeFacts, findings
from lft.train.pairs import rounds

ROOM = {"/shared/runs": 10**12}


def node(number: int, nodes: int = 4, **facts: Any) -> NodeFacts:
    """One that is well, but for what is said."""
    pairs = {other: 0.01 for other in range(nodes) if other != number}
    values = {
        "name": f"n{number}",
        "python": "3.11.7",
        "packages": {"torch": "2.13"},
        "gpus": ("A",),
        "free_bytes": ROOM,
    }
    return NodeFacts.model_validate(values | {"pairs": pairs} | facts)


def test_nodes_that_are_well_have_no_findings() -> None:
    assert findings([node(number) for number in range(4)], gpus_wanted=1) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"python": "3.12.1"}, "n2 has Python 3.12.1, the others 3.11.7"),
        ({"packages": {"torch": "2.12"}}, "n2 has torch 2.12, the others 2.13"),
        ({"packages": {}}, "n2 has torch none, the others 2.13"),
        ({"gpus": ()}, "n2 shows 0 of 1 GPUs"),
        ({"free_bytes": {"/tmp": 2**30}}, "n2 has 1.0 GiB free in /tmp"),
        ({"delay_seconds": 15.0}, "n2 sees files of the shared folder 15 s late"),
        ({"clock_seconds": -40.0}, "n2's clock is 40 s behind n0's"),
    ],
)
def test_what_is_wrong_with_one_node_is_said_of_that_node(facts: dict[str, Any], words: str) -> None:
    nodes = [node(number, **(facts if number == 2 else {})) for number in range(4)]
    assert findings(nodes, gpus_wanted=1) == [words]


def test_a_node_that_nobody_reaches_is_at_fault_and_the_others_are_not() -> None:
    def pairs(number: int) -> dict[int, float | str]:
        others = [other for other in range(4) if other != number]
        return {other: "Connection refused" if 2 in (number, other) else 0.01 for other in others}

    found = findings([node(number, pairs=pairs(number)) for number in range(4)], gpus_wanted=1)
    assert found == ["n2 is at fault in 3 of its 3 connections: Connection refused"]


def test_one_broken_connection_names_both_its_ends() -> None:
    def pairs(number: int) -> dict[int, float | str]:
        others = [other for other in range(4) if other != number]
        return {other: "timed out" if {number, other} == {0, 3} else 0.01 for other in others}

    assert findings([node(number, pairs=pairs(number)) for number in range(4)], gpus_wanted=1) == [
        "n0 and n3: timed out"
    ]


def test_a_slow_node_is_told_with_its_times() -> None:
    def pairs(number: int) -> dict[int, float]:
        return {other: 0.4 if 1 in (number, other) else 0.01 for other in range(6) if other != number}

    (found,) = findings([node(number, 6, pairs=pairs(number)) for number in range(6)], gpus_wanted=1)
    assert found == "n1 is at fault in 5 of its 5 connections: an all-reduce takes 0.400 s, usually 0.010"


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5, 8])
def test_every_two_nodes_meet_once_and_no_node_twice_in_a_round(nodes: int) -> None:
    meetings = list(rounds(nodes))
    assert sorted(pair for each in meetings for pair in each) == [
        (first, second) for first in range(nodes) for second in range(first + 1, nodes)
    ]
    for each in meetings:
        busy = [number for pair in each for number in pair]
        assert len(busy) == len(set(busy))
