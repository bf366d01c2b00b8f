"""What is done to a Hub while an adapter goes there, what the user must read, and what must have arrived.

All in one process, with the real client and a Hub on this machine: `play_all` sets the client's environment, so nothing may
have imported huggingface_hub before. Waits are not waited, and requests time out after half a second.
"""

import os
import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Literal

from tests.local_hub import LocalHub
from tests.publish.finished_runs import finished_run

TOKEN, READER, WRONG = "hf_alice_secret", "hf_reader_secret", "hf_wrong_secret"
LARGE_BYTES = 12 * 2**20
Arrives = Literal["everything", "nothing"]
FILES = 9
"""Adapter and its configuration, card, lft.json, picture, three of the tokenizer, the chat template."""


Harm = Callable[[LocalHub, str], None]
"""Done to the Hub before the upload to the repository of this name."""


def _nothing(_hub: LocalHub, _name: str) -> None:
    return


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row of the table."""

    name: str
    harm: Harm = _nothing
    exit_code: int = 0
    says: tuple[str, ...]
    """Words of what the user reads, in this order."""
    arrives: Arrives = "everything"
    token: str = TOKEN
    repo_name: str = ""
    """One of its own by default."""
    options: tuple[str, ...] = ("--create-new",)
    weights_bytes: int = 1000


@dataclass(frozen=True)
class Played:
    """What came of it."""

    name: str
    exit_code: int
    said: str
    arrived: str
    """In words; `everything` and `nothing` are exact."""
    waits: list[float]


ONCE = "trying again in 2 s (1 of 5)"
GAVE_UP = "(5 of 5)"
SIX_TIMES = "also the last of 6 times (upload to REPO)\n  next   "
STEPS = {
    "creating the repository": "/repos/create",
    "looking at the repository": "/api/models/alice/",
    "checking the card": "/validate-yaml",
    "asking how to send": "/preupload/",
    "asking where to send": "/info/lfs/objects/batch",
    "sending the weights": "/_large/",
    "the commit": "/commit/",
}


def refusing(n: int, status: int, path: str, message: str = "told to fail", **headers: str) -> Harm:
    """`n` answers of this status."""
    return lambda hub, _: hub.fail_next(n, status, path, message, **headers)


def _breaking_a_part(hub: LocalHub, _name: str) -> None:
    hub.send_in_parts(2**20)
    hub.drop_next(1, "/part-7", bytes_read=2**19)


def _faults() -> list[Fault]:
    faults = [
        Fault(
            name=f"503 at {step}, once", harm=refusing(1, 503, path), says=(f"the Hub answered 503; {ONCE}", "uploaded")
        )
        for step, path in STEPS.items()
    ]
    faults += [
        Fault(
            name=f"{status} at the commit, twice",
            harm=refusing(2, status, "/commit/"),
            says=(f"answered {status}; {ONCE}", f"answered {status}; trying again in 4 s (2 of 5)", "uploaded"),
        )
        for status in (500, 502, 504)
    ]
    faults += [
        Fault(
            name="503 at the commit, always",
            harm=refusing(99, 503, "/commit/"),
            exit_code=64,
            says=("in 32 s (5 of 5)", f"the Hub answered 503, {SIX_TIMES}try again later"),
            arrives="nothing",
        ),
        Fault(
            name="429 that asks to wait 20 s, once",
            harm=refusing(1, 429, "/preupload/", Retry_After="20"),
            says=("the Hub answered 429; trying again in 20 s (1 of 5)", "uploaded"),
        ),
        Fault(
            name="429 that asks to wait an hour",
            harm=refusing(1, 429, "/preupload/", Retry_After="3600"),
            exit_code=64,
            says=("the Hub answered 429 and asks to wait 3600 s",),
            arrives="nothing",
        ),
        Fault(
            name="401: a token that is not valid",
            token=WRONG,
            exit_code=64,
            says=("does not accept the token", "hf auth login"),
            arrives="nothing",
        ),
        Fault(
            name="403: a token that may only read",
            token=READER,
            exit_code=64,
            says=("the token may not write to REPO: You have no write access", "is alice your user name?"),
            arrives="nothing",
        ),
        Fault(
            name="403: a namespace of someone else",
            repo_name="bob/x",
            exit_code=64,
            says=("the token may not write to bob/x", "is bob your user name?"),
            arrives="nothing",
        ),
        Fault(
            name="404: a repository that does not exist",
            options=(),
            exit_code=64,
            says=("the repository REPO does not exist, or the token may not see it", "create_new"),
            arrives="nothing",
        ),
        Fault(
            name="409: the repository exists already",
            harm=lambda hub, name: hub.add_empty_repository("models", name),
            says=("uploaded",),
        ),
        Fault(
            name="409 at creating: another operation is in progress, once",
            harm=refusing(1, 409, "/repos/create", "Cannot create repo: another conflicting operation is in progress"),
            says=(f"the Hub answered 409; {ONCE}", "uploaded"),
        ),
        Fault(
            name="409 at the commit, once",
            harm=refusing(1, 409, "/commit/"),
            says=(f"the Hub answered 409; {ONCE}", "uploaded"),
        ),
        Fault(
            name="409 at the commit, always",
            harm=refusing(99, 409, "/commit/"),
            exit_code=64,
            says=(GAVE_UP, f"the Hub answered 409, {SIX_TIMES}try again later"),
            arrives="nothing",
        ),
        Fault(
            name="412: someone else commits in between, once",
            harm=refusing(1, 412, "/commit/"),
            says=(f"the Hub answered 412; {ONCE}", "uploaded"),
        ),
        Fault(
            name="402 at sending: storage is full",
            harm=refusing(1, 402, "/info/lfs/", "Private repository storage limit reached"),
            exit_code=64,
            says=("the Hub answered 402 to the upload to REPO: Private repository storage limit reached",),
            arrives="nothing",
        ),
        Fault(
            name="no answer at creating the repository, once",
            harm=lambda hub, _: hub.stall_next(1, "/repos/create"),
            says=(f"the Hub did not answer within 0.5 s; {ONCE}", "uploaded"),
        ),
        Fault(
            name="no answer at sending the weights, once",
            harm=lambda hub, _: hub.stall_next(1, "/_large/"),
            says=(f"the Hub did not answer within 0.5 s; {ONCE}", "uploaded"),
        ),
        Fault(
            name="no answer at the commit, always",
            harm=lambda hub, _: hub.stall_next(99, "/commit/"),
            exit_code=64,
            says=(GAVE_UP, f"the Hub did not answer within 0.5 s, {SIX_TIMES}"),
            arrives="nothing",
        ),
        Fault(
            name="connection broken in the middle of 12 MiB of weights, twice",
            harm=lambda hub, _: hub.drop_next(2, "/_large/", bytes_read=LARGE_BYTES // 2),
            says=(
                "sending adapter_model.safetensors, 12 MiB",
                f"the connection to the Hub broke; {ONCE}",
                "(2 of 5)",
                "uploaded",
            ),
            weights_bytes=LARGE_BYTES,
        ),
        Fault(
            name="weights of 12 MiB in 12 parts, the connection broken in the middle of the seventh",
            harm=_breaking_a_part,
            says=("sending adapter_model.safetensors, 12 MiB", f"the connection to the Hub broke; {ONCE}", "uploaded"),
            weights_bytes=LARGE_BYTES - 1,  # other weights than before, which are there
        ),
        Fault(
            name="connection broken at the commit, once",
            harm=lambda hub, _: hub.drop_next(1, "/commit/"),
            says=(f"the connection to the Hub broke; {ONCE}", "uploaded"),
        ),
        Fault(
            name="commit made, its answer lost",
            harm=lambda hub, _: hub.lose_answers(1, "/commit/"),
            says=(f"the connection to the Hub broke; {ONCE}", "uploaded"),
        ),
        Fault(
            name="repository created, the answer lost",
            harm=lambda hub, _: hub.lose_answers(1, "/repos/create"),
            says=(f"the connection to the Hub broke; {ONCE}", "uploaded"),
        ),
        Fault(
            name="branch created, the answer lost",
            harm=lambda hub, _: hub.lose_answers(1, "/branch/"),
            options=("--create-new", "--revision", "next"),
            says=(
                "has no branch next; making it from main",
                f"broke; {ONCE}",
                "uploaded   HUB/REPO/tree/next",
            ),
        ),
        Fault(
            name="no Hub at all (connection refused)",
            harm=lambda hub, _: hub.__exit__(None, None, None),
            exit_code=64,
            says=(
                f"the Hub cannot be reached (Connection refused); {ONCE}",
                GAVE_UP,
                f"cannot be reached (Connection refused), {SIX_TIMES}check the network",
            ),
            arrives="nothing",
        ),
    ]
    return faults


FAULTS = _faults()
"""The last one ends the Hub."""


def play_all(folder: Path, faults: list[Fault] = FAULTS) -> list[Played]:
    """Do each to a Hub of its own repository; in a process in which no client of a Hub was imported yet."""
    with LocalHub({TOKEN: "alice", READER: "alice:ro"}) as hub:
        own = {"HF_HUB_OFFLINE", *hub.environment(folder)}
        for name in [name for name in os.environ if name in own]:
            del os.environ[name]
        os.environ.update(hub.environment(folder / "home"))
        return [_play(fault, hub, folder / str(number)) for number, fault in enumerate(faults)]


def _play(fault: Fault, hub: LocalHub, folder: Path) -> Played:
    from lft.cli.main import run
    from lft.publish import patience

    waits: list[float] = []
    patience.sleep = waits.append
    patience.TIME_LIMIT_SECONDS = (0.5, 0.5, 0.5, None)
    name = fault.repo_name or f"alice/{re.sub('[^a-z0-9]+', '-', fault.name.lower()).strip('-')[:60]}"
    out = finished_run(folder / "out", {"repo_name": name}, fault.weights_bytes)
    os.environ["HF_TOKEN"] = fault.token
    fault.harm(hub, name)
    heard = StringIO()
    with redirect_stdout(heard), redirect_stderr(heard):
        code = run(["upload", str(out), *fault.options])
    hub.forget_faults()
    hub.send_in_parts(None)
    said = heard.getvalue().replace(hub.url, "HUB").replace(name, "REPO" if not fault.repo_name else name)
    return Played(fault.name, code, said.replace(str(out), "RUN").strip(), _arrived(hub, name, out), waits)


def _arrived(hub: LocalHub, name: str, out: Path) -> str:
    if ("models", name) not in hub.store.repositories:
        return "nothing"
    branches = hub.store.repositories["models", name].branches
    made = [commit for line in branches.values() for commit in line[1:]]
    if not made:
        return "nothing"
    files = {path: file.content for path, file in made[-1].files.items()}
    is_whole = files["adapter_model.safetensors"] == (out / "adapter_model.safetensors").read_bytes()
    if len(made) == 1 and len(files) == FILES and is_whole:
        return "everything"
    return f"{len(files)} files in {len(made)} commits"


def as_json(played: list[Played]) -> list[Mapping[str, object]]:
    """For the process that asked for it."""
    return [asdict(each) for each in played]
