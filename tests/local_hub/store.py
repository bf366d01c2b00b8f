"""The memory of the local Hub: repositories, their commits and the large files waiting for a commit. No HTTP.

Covered: model and dataset repositories with branches, whole-repository commits, private repositories.
Not covered: tags, pull requests, gated access, organizations, storage limits.
"""

import base64
import fnmatch
import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

KINDS = ("models", "datasets")
MAIN = "main"
LARGE_PATTERNS = ("*.safetensors", "*.bin", "*.gguf", "*.pt", "*.parquet", "tokenizer.json")
LARGE_BYTES = 10 * 1024 * 1024


class RefusedError(Exception):
    """Ends a request with an HTTP status, a message and, for some, the code from which clients choose an exception."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


def git_object_name(content: bytes) -> str:
    """Name git gives to a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def pointer_to(sha256: str, size: int) -> bytes:
    """Text that git holds in place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def goes_to_large_storage(path: str, size: int) -> bool:
    """Whether the Hub asks for this file ahead of the commit, by its sha256, instead of inside the commit."""
    name = path.rsplit("/", 1)[-1]
    return size >= LARGE_BYTES or any(fnmatch.fnmatch(name, pattern) for pattern in LARGE_PATTERNS)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One version of one file."""

    content: bytes
    is_large: bool
    object_name: str
    sha256: str

    @classmethod
    def of(cls, content: bytes, *, is_large: bool) -> "StoredFile":
        """Return the file together with its names."""
        sha256 = hashlib.sha256(content).hexdigest()
        in_git = pointer_to(sha256, len(content)) if is_large else content
        return cls(content, is_large, git_object_name(in_git), sha256)

    @property
    def etag(self) -> str:
        """What clients compare with their own copy of the file."""
        return self.sha256 if self.is_large else self.object_name


@dataclass(frozen=True, slots=True)
class Commit:
    """The whole content of a repository at one time."""

    oid: str
    title: str
    files: Mapping[str, StoredFile]

    @classmethod
    def after(cls, parent: "Commit | None", title: str, files: Mapping[str, StoredFile]) -> "Commit":
        """Return the commit whose name depends on its content and on all commits before it."""
        names = {path: file.object_name for path, file in files.items()}
        identity = json.dumps([parent.oid if parent else "", title, names], sort_keys=True)
        return cls(hashlib.sha1(identity.encode(), usedforsecurity=False).hexdigest(), title, files)


@dataclass(slots=True)
class Repository:
    """Named lines of commits, oldest first, never empty; there is always one called `main`."""

    name: str
    private: bool
    branches: dict[str, list[Commit]]

    @property
    def owner(self) -> str:
        """The user whose namespace holds the repository."""
        return self.name.split("/")[0]

    @property
    def commits(self) -> list[Commit]:
        """Those of the branch `main`."""
        return self.branches[MAIN]

    def at(self, revision: str) -> Commit:
        """Return the commit of a branch name or of a full commit name."""
        if revision == "HEAD" or revision in self.branches:
            return self.branches.get(revision, self.commits)[-1]
        for commits in self.branches.values():
            for commit in commits:
                if commit.oid == revision:
                    return commit
        raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def add_branch(self, branch: str, start: str) -> None:
        """Begin a branch at a revision, under a name that must be free."""
        if branch in self.branches:
            raise RefusedError(409, f"Reference {branch} already exists")
        self.branches[branch] = [self.at(start)]

    def add(self, title: str, files: Mapping[str, StoredFile], branch: str = MAIN) -> Commit:
        """Append one commit with this whole content."""
        commits = self.branches[branch]
        commits.append(Commit.after(commits[-1], title, files))
        return commits[-1]


@dataclass(slots=True)
class Store:
    """All repositories, and every large file ever uploaded. Whoever reads and then changes it holds `lock`."""

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)  # (kind, "owner/name")
    short_names: dict[tuple[str, str], str] = field(default_factory=dict)  # (kind, "name") -> "owner/name"
    large_files: dict[str, bytes] = field(default_factory=dict)  # by sha256
    large_parts: dict[tuple[str, int], bytes] = field(default_factory=dict)  # by sha256 of the whole, and number
    part_bytes: int | None = None  # larger files are to be sent in parts of this size
    lock: threading.RLock = field(default_factory=threading.RLock)

    def create(self, kind: str, name: str, *, private: bool) -> Repository:
        """Make a repository with an empty first commit, under a name that must be free."""
        if kind not in KINDS:
            raise RefusedError(400, f"The local Hub has {' and '.join(KINDS)}, not {kind}")
        if (kind, name) in self.repositories:
            raise RefusedError(409, "You already created this repo")
        first = Commit.after(None, "initial commit", {})
        made = self.repositories[kind, name] = Repository(name, private, {MAIN: [first]})
        return made

    def find(self, kind: str, name: str, user: str | None) -> Repository:
        """Return the repository; to all but its owner a private one seems not to exist."""
        found = self.repositories.get((kind, self.short_names.get((kind, name), name)))
        if found is None or (found.private and user != found.owner):
            raise RefusedError(404 if user else 401, "Repository not found", "RepoNotFound")
        return found

    def keep_large_file(self, sha256: str, content: bytes) -> None:
        """Take in a large file ahead of the commit that names it."""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise RefusedError(400, "The sha256 of the content does not match")
        self.large_files[sha256] = content

    def join_parts(self, sha256: str, numbers: Iterable[int]) -> None:
        """Take in a large file whose parts have come."""
        try:
            content = b"".join(self.large_parts[sha256, number] for number in numbers)
        except KeyError as error:
            raise RefusedError(400, f"Part {error.args[0][1]} was not uploaded") from None
        self.keep_large_file(sha256, content)

    def commit(self, repository: Repository, branch: str, lines: Iterable[bytes]) -> Commit:
        """Apply a commit in the client's form, one JSON action a line. A refused action leaves nothing changed."""
        draft = _Draft(self, repository.branches[branch][-1])
        for line in filter(None, lines):
            action = json.loads(line)
            draft.apply(action["key"], action["value"])
        return repository.add(draft.title, draft.files, branch)


class _Draft:
    """A commit in the making."""

    def __init__(self, store: Store, parent: Commit) -> None:
        self.store, self.parent = store, parent
        self.files = dict(self.parent.files)
        self.title = ""

    def apply(self, key: str, value: Mapping[str, Any]) -> None:
        actions: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "header": self._header,
            "file": self._small_file,
            "lfsFile": self._large_file,
            "deletedFile": self._deleted_file,
            "deletedFolder": self._deleted_folder,
        }
        if key not in actions:
            raise RefusedError(400, f"The local Hub knows no commit action {key}")
        actions[key](value)

    def _header(self, value: Mapping[str, Any]) -> None:
        self.title = value.get("summary", "")
        if value.get("parentCommit", self.parent.oid) != self.parent.oid:
            raise RefusedError(412, "A commit has happened since: the parent commit is not the newest one")

    def _small_file(self, value: Mapping[str, Any]) -> None:
        self.files[value["path"]] = StoredFile.of(base64.b64decode(value["content"]), is_large=False)

    def _large_file(self, value: Mapping[str, Any]) -> None:
        content = self.store.large_files.get(value["oid"])
        if content is None:
            raise RefusedError(400, f"The large file {value['oid']} was not uploaded")
        self.files[value["path"]] = StoredFile.of(content, is_large=True)

    def _deleted_file(self, value: Mapping[str, Any]) -> None:
        self.files.pop(value["path"], None)

    def _deleted_folder(self, value: Mapping[str, Any]) -> None:
        start = value["path"].rstrip("/") + "/"
        self.files = {path: file for path, file in self.files.items() if not path.startswith(start)}
