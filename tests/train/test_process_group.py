"""Joining: who does not come is named by number, by every rank that waits, at the deadline."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import pytest

from lft.core.errors import RendezvousError
from lft.core.rank import GivenRendezvous, Rank, clean_environment
from lft.train.process_group import gloo_interface, join

# A rank that is imported before it joins, so that the slowness of a machine is not taken for one that does not come.
RANK = """
import json, sys
from pathlib import Path
from lft.core.errors import LftError
from lft.core.rank import Rank
from lft.train.process_group import agree, join, leave
print("ready", flush=True)
sys.stdin.readline()
try:
    join(Rank.from_environment(), "cpu", Path(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3]))
    agree(True, "cpu")
    leave()
    print("joined", flush=True)
except LftError as error:
    print(error.exit_code, error, flush=True)
"""


@contextmanager
def ranks(
    started: list[int],
    world_size: int,
    rendezvous: Path,
    timeout_seconds: float,
    given: dict[str, str] | None = None,
    terms: Mapping[int, object] = MappingProxyType({}),
) -> Iterator[list[str]]:
    """What the started ranks of a world say at the end; `terms` are those of some ranks, others have none."""
    processes = []
    for rank in started:
        own = Rank(rank=rank, local_rank=rank, world_size=world_size, local_world_size=world_size).to_environment()
        command = [sys.executable, "-c", RANK, str(rendezvous), str(timeout_seconds), json.dumps(terms.get(rank, {}))]
        pipe = subprocess.PIPE
        environment = clean_environment() | own | (given or {})
        processes.append(subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True))
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield [process.communicate(timeout=120)[0].strip() for process in processes]
    finally:
        for process in processes:
            process.kill()


def at_port(port: str) -> dict[str, str]:
    """How a launcher says that ranks meet at a port of this machine."""
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize("is_given", [False, True], ids=["by file", "MASTER_ADDR"])
def test_every_waiting_rank_names_all_that_did_not_come(tmp_path: Path, is_given: bool) -> None:
    given = at_port(free_port()) if is_given else {}
    with ranks([0, 2], 4, tmp_path / "rendezvous.json", 4, given) as said:
        assert said == ["66 ranks 1 and 3 of 4 did not join within 4 s"] * 2


@pytest.mark.parametrize("is_given", [False, True], ids=["by file", "MASTER_ADDR"])
def test_without_rank_0_the_others_say_that_it_did_not_come(tmp_path: Path, is_given: bool) -> None:
    given = at_port(free_port()) if is_given else {}
    with ranks([1], 2, tmp_path / "rendezvous.json", 2, given) as said:
        assert said == ["66 rank 0 of 2 did not join within 2 s"]


def test_ranks_that_all_come_join_at_an_address_they_were_given(tmp_path: Path) -> None:
    with ranks([0, 1], 2, tmp_path / "none.json", 60, at_port(free_port())) as said:
        assert said == ["joined", "joined"]
    assert not (tmp_path / "none.json").exists()


def test_ranks_with_other_settings_than_rank_0_are_named_by_every_rank_with_what_differs(tmp_path: Path) -> None:
    same, other = {"training.max_steps": 30, "lora.r": 8}, {"training.max_steps": 20, "lora.r": 8}
    with ranks([0, 1, 2, 3], 4, tmp_path / "at.json", 60, terms={0: same, 1: same, 2: other, 3: other}) as said:
        words = "66 ranks 2 and 3 of 4 cannot train with rank 0: training.max_steps is 20, not 30"
        assert said == [f"{words}\n  next   start every node with the same settings"] * 4


def test_a_rank_that_comes_twice_is_told_to_all_that_wait(tmp_path: Path) -> None:
    with ranks([0, 1, 1], 4, tmp_path / "at.json", 60) as said:
        assert said == ["66 rank 1 came twice\n  next   is --node-rank different on each node?"] * 3


def test_a_second_rank_0_on_a_machine_is_asked_whether_the_first_is_meant(tmp_path: Path) -> None:
    port = free_port()
    with ranks([0, 0], 2, tmp_path / "none.json", 5, at_port(port)) as said:
        second = next(words for words in said if "cannot listen" in words)
        assert f"66 rank 0 cannot listen at 127.0.0.1:{port}: the port is in use" in second
        assert "is --node-rank different on each node?" in second
        assert "66 rank 1 of 2 did not join within 5 s" in said


def test_ranks_on_several_machines_are_asked_for_an_address(tmp_path: Path) -> None:
    here = Rank(rank=1, local_rank=1, world_size=4, local_world_size=2)
    with pytest.raises(RendezvousError, match="set MASTER_ADDR and MASTER_PORT"):
        join(here, "cpu", tmp_path / "rendezvous.json", 1, {})


def test_ranks_of_one_machine_talk_over_its_loopback_and_others_over_the_way_to_the_first() -> None:
    one, several = Rank(world_size=2, local_world_size=2), Rank(world_size=4, local_world_size=2)
    loopback = gloo_interface(one, None)
    assert loopback.startswith("lo")
    assert gloo_interface(one, GivenRendezvous(host="192.0.2.1", port=1, is_served=False, life="0")) == loopback
    assert gloo_interface(several, GivenRendezvous(host="127.0.0.1", port=1, is_served=False, life="0")) == loopback


def test_an_address_nobody_knows_is_named_with_what_to_check() -> None:
    given = GivenRendezvous(host="no-such-host.invalid", port=29500, is_served=False, life="0")
    with pytest.raises(RendezvousError, match=r"no-such-host\.invalid:29500.*no way") as error:
        gloo_interface(Rank(world_size=4, local_world_size=2), given)
    assert "check the host of --rdzv" in error.value.next_step
