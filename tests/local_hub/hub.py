"""The face of the local Hub: starts and stops it, puts repositories in place, looks at what was uploaded.

Covered: what huggingface_hub, transformers and datasets need to create, fill, read and download model and dataset
repositories named `owner/name`. Not covered: what `routes` and `store` leave out.
"""

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from .server import Fault, HubServer
from .store import Commit, Repository, Store, StoredFile, goes_to_large_storage


class LocalHub:
    """A Hub for the time of a `with` block.

    `tokens` maps each token to its user, or to `user:ro` for a token that may only read. `url` is the value for
    HF_ENDPOINT; `environment()` gives all that a client's process needs. `requests` lists (method, path and query) of
    all requests so far, failed ones included.
    """

    def __init__(self, tokens: Mapping[str, str] | None = None) -> None:
        self._server = HubServer(tokens or {})
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Address of the Hub, without a slash at its end."""
        return self._server.url

    @property
    def store(self) -> Store:
        """The memory behind the Hub."""
        return self._server.store

    @property
    def requests(self) -> list[tuple[str, str]]:
        """All requests so far, oldest first."""
        return self._server.requests

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Variables for a client's process, to lay over an environment without other HF_ variables.

        They must be there before huggingface_hub is imported. The proxy variables send what would leave the machine to
        this Hub, which refuses and records it: datasets asks a host `datasets-server.<endpoint>` for each data set.
        """
        proxies = {"http_proxy": self.url, "https_proxy": self.url, "no_proxy": "127.0.0.1,localhost"}
        own = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": token or "",
            "HF_HUB_DISABLE_XET": "1",  # uploads would need a route that only the real Hub has
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",  # datasets would count each load at a host of Amazon
        }
        # Clients read both spellings, and not all prefer the same one.
        return own | proxies | {name.upper(): value for name, value in proxies.items()}

    def add_repository(self, kind: str, name: str, files: Mapping[str, bytes], *, private: bool = False) -> Commit:
        """Put a repository in place without a client; `kind` is "models" or "datasets", `files` the content by path."""
        stored = {
            path: StoredFile.of(content, is_large=goes_to_large_storage(path, len(content)))
            for path, content in files.items()
        }
        with self.store.lock:
            return self.store.create(kind, name, private=private).add("add files", stored)

    def add_empty_repository(self, kind: str, name: str, *, private: bool = False) -> None:
        """Put a repository in place as a client creates one."""
        with self.store.lock:
            self.store.create(kind, name, private=private)

    def add_short_name(self, kind: str, short: str, name: str) -> None:
        """Let a repository answer to a name without owner too; the real Hub redirects those of its oldest ones."""
        self.store.short_names[kind, short] = name

    def files(self, name: str, kind: str = "models", branch: str = "main") -> dict[str, bytes]:
        """Content by path of the newest commit of a branch."""
        return {path: file.content for path, file in self._repository(name, kind).at(branch).files.items()}

    def is_private(self, name: str, kind: str = "models") -> bool:
        """Whether only the owner can see the repository."""
        return self._repository(name, kind).private

    def commits(self, name: str, kind: str = "models", branch: str = "main") -> list[Commit]:
        """All commits of a branch, oldest first; the first one is empty and comes with the repository."""
        return list(self._repository(name, kind).branches[branch])

    def send_in_parts(self, part_bytes: int | None) -> None:
        """From now on files larger than this are to be sent in parts of this size; the real Hub does so from 5 GB on."""
        self.store.part_bytes = part_bytes

    def fail_next(
        self, n: int, status: int = 503, path: str = "", message: str = "This request was told to fail", **headers: str
    ) -> None:
        """Let the next `n` requests whose path and query contain `path` fail with this status and change nothing.

        After 408, 429, 500, 502, 503 and 504 huggingface_hub repeats downloads, file lists and the steps before a
        commit by itself, mostly with waits that begin at one second; identity, repository facts, creation, settings
        and the commit it asks once. Headers are named as keywords, `Retry_After="3"`.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._add(Fault(n, path, "refuse", status, message, named))

    def drop_next(self, n: int, path: str = "", *, bytes_read: int = 0) -> None:
        """Break the connections of the next `n` such requests, once so many bytes of their body have come."""
        self._add(Fault(n, path, "drop", bytes_read=bytes_read))

    def stall_next(self, n: int, path: str = "") -> None:
        """Never answer the next `n` such requests."""
        self._add(Fault(n, path, "stall"))

    def lose_answers(self, n: int, path: str = "") -> None:
        """Do what the next `n` such requests ask, and break their connections instead of answering."""
        self._add(Fault(n, path, "lose"))

    def forget_faults(self) -> None:
        """From now on nothing goes wrong any more."""
        with self.store.lock:
            self._server.faults.clear()

    def _add(self, fault: Fault) -> None:
        with self.store.lock:
            self._server.faults.append(fault)

    def _repository(self, name: str, kind: str) -> Repository:
        try:
            return self.store.repositories[kind, name]
        except KeyError:
            there = ", ".join(" ".join(key) for key in self.store.repositories) or "none"
            raise KeyError(f"no repository {kind} {name}; there is: {there}") from None
