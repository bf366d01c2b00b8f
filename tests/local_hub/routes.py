"""What the local Hub answers: one function a route, from a request to a response, without any HTTP server.

Covered: identity, creating, deleting and reading repositories, their settings and branches, the form of a card's
metadata, commits with small and large files, the latter in parts too, file lists, downloads with ranges. Errors carry
the status and code from which the clients choose an exception: bad token 401, read-only token or foreign namespace 403,
existing repository 409, missing one 404, private one without a token 401.

Not covered: Xet storage, redirects to a content network, pages of a long list, search, discussions,
the dataset viewer. The statuses follow the clients' source, not a
recording of the real Hub.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from .cards import metadata_errors, metadata_of
from .store import (
    Commit,
    RefusedError,
    Repository,
    Store,
    StoredFile,
    git_object_name,
    goes_to_large_storage,
    pointer_to,
)

STAMP = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True, slots=True)
class Request:
    """One request with all a route needs: who asks, for what, and where the answer's links must lead."""

    store: Store
    base_url: str
    method: str
    path: str  # still quoted
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    user: str | None
    may_write: bool

    def need_owner(self, owner: str) -> None:
        """Refuse whoever may not change what `owner` has."""
        if self.user is None:
            raise RefusedError(401, "Invalid username or password.")
        if not self.may_write or owner != self.user:
            raise RefusedError(403, f'You have no write access under the namespace "{owner}"')

    def readable(self, kind: str, name: str) -> Repository:
        """Return the repository, if whoever asks may know of it."""
        return self.store.find(kind, name, self.user)

    def writable(self, kind: str, name: str) -> Repository:
        """Return the repository, if whoever asks may change it."""
        found = self.readable(kind, name)
        self.need_owner(found.owner)
        return found


@dataclass(frozen=True, slots=True)
class Response:
    """One answer; a body that is not bytes is sent as JSON."""

    body: object = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def answer(request: Request) -> Response:
    """Return the response of the route that fits, or the refusal in the form that clients understand."""
    try:
        for method, pattern, route in ROUTES:
            match = re.fullmatch(pattern, request.path)
            if match and request.method in method.split():
                return route(request, *(unquote(group or "") for group in match.groups()))
    except RefusedError as refusal:
        return refused(refusal)
    return refused(RefusedError(404, f"The local Hub has no route {request.method} {request.path}"))


def refused(refusal: RefusedError) -> Response:
    """Return an error as the Hub tells it: in the body and, for HEAD requests, in headers too."""
    code = {"X-Error-Code": refusal.code} if refusal.code else {}
    return Response({"error": refusal.message}, refusal.status, {"X-Error-Message": refusal.message} | code)


def _whoami(request: Request) -> Response:
    if request.user is None:
        raise RefusedError(401, "Invalid username or password.")
    token = {"displayName": "test", "role": "write" if request.may_write else "read"}
    person = {"type": "user", "id": "1", "name": request.user, "orgs": [], "auth": {"accessToken": token}}
    return Response(person)


def _validate_card(request: Request) -> Response:
    found = metadata_errors(json.loads(request.body)["content"])
    return Response({"errors": [{"message": each} for each in found], "warnings": []}, 400 if found else 200)


def _wished(request: Request) -> tuple[Mapping[str, Any], str, str]:
    """Body, kind and full name of a request to create or delete a repository."""
    wish = json.loads(request.body)
    owner = wish.get("organization") or request.user or ""
    request.need_owner(owner)
    return wish, (wish.get("type") or "model") + "s", f"{owner}/{wish['name']}"


def _create(request: Request) -> Response:
    wish, kind, name = _wished(request)
    link = {"name": name, "url": f"{request.base_url}/{'' if kind == 'models' else kind + '/'}{name}"}
    try:
        request.store.create(kind, name, private=wish.get("visibility") == "private" or bool(wish.get("private")))
    except RefusedError as refusal:
        if refusal.status != 409:
            raise
        # create_repo(exist_ok=True) reads the link out of the refusal.
        return Response(link | {"error": refusal.message}, refusal.status)
    return Response(link)


def _delete(request: Request) -> Response:
    _, kind, name = _wished(request)
    request.readable(kind, name)
    del request.store.repositories[kind, name]
    return Response({})


def _settings(request: Request, kind: str, name: str) -> Response:
    repository, wish = request.writable(kind, name), json.loads(request.body)
    if "visibility" in wish or "private" in wish:
        repository.private = wish.get("visibility") == "private" or bool(wish.get("private"))
    return Response({"private": repository.private})


def _info(request: Request, kind: str, name: str, revision: str = "main") -> Response:
    repository = request.readable(kind, name)
    commit = repository.at(revision)
    shown = {
        "_id": "1",
        "id": repository.name,
        "author": repository.owner,
        "sha": commit.oid,
        "private": repository.private,
        "gated": False,
        "disabled": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "createdAt": STAMP,
        "lastModified": STAMP,
        "siblings": [_sibling(path, file) for path, file in sorted(commit.files.items())],
        "cardData": metadata_of(commit.files["README.md"].content.decode()) if "README.md" in commit.files else None,
    }
    return Response(shown | ({"modelId": name} if kind == "models" else {}))


def _sibling(path: str, file: StoredFile) -> dict[str, object]:
    shown = {"rfilename": path, "size": len(file.content), "blobId": file.object_name}
    return shown | ({"lfs": _large_part(file) | {"sha256": file.sha256}} if file.is_large else {})


def _large_part(file: StoredFile) -> dict[str, object]:
    size = len(file.content)
    return {"size": size, "pointerSize": len(pointer_to(file.sha256, size))}


def _history(request: Request, kind: str, name: str, revision: str) -> Response:
    repository = request.readable(kind, name)
    commits = reversed(repository.branches.get(revision, repository.commits))
    return Response(
        [{"id": commit.oid, "title": commit.title, "message": "", "authors": [], "date": STAMP} for commit in commits]
    )


def _entry(path: str, file: StoredFile) -> dict[str, object]:
    shown = {"type": "file", "path": path, "oid": file.object_name, "size": len(file.content)}
    return shown | ({"lfs": _large_part(file) | {"oid": file.sha256}} if file.is_large else {})


def _tree(request: Request, kind: str, name: str, revision: str, folder: str) -> Response:
    files = request.readable(kind, name).at(revision).files
    deep = request.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    start = folder.rstrip("/") + "/" if folder else ""
    inside = {path.removeprefix(start): file for path, file in files.items() if path.startswith(start)}
    if start and not inside:
        raise RefusedError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
    folders = {path[: cut.start()] for path in inside for cut in re.finditer("/", path)}
    shown: list[dict[str, object]] = [
        {"type": "directory", "path": start + path, "oid": git_object_name(path.encode()), "size": 0}
        for path in sorted(folders)
        if deep or "/" not in path
    ]
    shown += [_entry(start + path, inside[path]) for path in sorted(inside) if deep or "/" not in path]
    return Response(shown)


def _paths_info(request: Request, kind: str, name: str, revision: str) -> Response:
    files = request.readable(kind, name).at(revision).files
    if "json" in request.headers.get("content-type", ""):
        wanted = json.loads(request.body)["paths"]
    else:
        wanted = parse_qs(request.body.decode()).get("paths", [])
    shown: list[dict[str, object]] = []
    for path in wanted:
        if path in files:
            shown.append(_entry(path, files[path]))
        elif any(other.startswith(path.rstrip("/") + "/") for other in files):
            shown.append({"type": "directory", "path": path, "oid": git_object_name(path.encode()), "size": 0})
    return Response(shown)


def _branches(request: Request, kind: str, name: str) -> Response:
    branches = request.readable(kind, name).branches.items()
    shown = [{"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": line[-1].oid} for branch, line in branches]
    return Response({"branches": shown, "converts": [], "tags": []})


def _create_branch(request: Request, kind: str, name: str, branch: str) -> Response:
    start = json.loads(request.body or b"{}").get("startingPoint", "main")
    request.writable(kind, name).add_branch(branch, start)
    return Response({})


def _need_branch(request: Request, repository: Repository, revision: str) -> None:
    if request.query.get("create_pr", ["0"])[0] in ("1", "true"):
        raise RefusedError(400, "The local Hub has no pull requests")
    if revision not in repository.branches:
        raise RefusedError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def _preupload(request: Request, kind: str, name: str, revision: str) -> Response:
    repository = request.writable(kind, name)
    _need_branch(request, repository, revision)
    files = repository.at(revision).files
    answers = []
    for offer in json.loads(request.body)["files"]:
        mode = "lfs" if goes_to_large_storage(offer["path"], offer["size"]) else "regular"
        known = files.get(offer["path"])
        # The client compares this oid with its own file and makes no commit when nothing differs.
        oid = known.etag if known else None
        answers.append({"path": offer["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return Response({"files": answers})


def _large_files_wanted(request: Request, kind_prefix: str, name: str) -> Response:
    request.writable(kind_prefix.rstrip("/") or "models", name)
    objects = []
    for offer in json.loads(request.body)["objects"]:
        links = {
            "upload": _how_to_send(request, offer["oid"], offer["size"]),
            "verify": {"href": f"{request.base_url}/_large_verify"},
        }
        known = offer["oid"] in request.store.large_files
        objects.append({"oid": offer["oid"], "size": offer["size"]} | ({} if known else {"actions": links}))
    content_type = {"Content-Type": "application/vnd.git-lfs+json"}
    return Response({"transfer": "basic", "objects": objects}, headers=content_type)


def _how_to_send(request: Request, sha256: str, size: int) -> dict[str, object]:
    """Where a large file goes: at once, or in parts, which a last request puts together."""
    address, part_bytes = f"{request.base_url}/_large/{sha256}", request.store.part_bytes
    if part_bytes is None or size <= part_bytes:
        return {"href": address}
    parts = {str(number): f"{address}/part-{number}" for number in range(1, -(-size // part_bytes) + 1)}
    return {"href": f"{address}/all", "header": {"chunk_size": str(part_bytes)} | parts}


def _large_file_part(request: Request, sha256: str, number: str) -> Response:
    request.store.large_parts[sha256, int(number)] = request.body
    return Response(headers={"ETag": f'"{git_object_name(request.body)}"'})


def _large_file_whole(request: Request, sha256: str) -> Response:
    request.store.join_parts(sha256, [part["partNumber"] for part in json.loads(request.body)["parts"]])
    return Response({})


def _large_file(request: Request, sha256: str) -> Response:
    request.store.keep_large_file(sha256, request.body)
    return Response()


def _large_file_verified(request: Request) -> Response:
    known = json.loads(request.body)["oid"] in request.store.large_files
    return Response({}, 200 if known else 404)


def _commit(request: Request, kind: str, name: str, revision: str) -> Response:
    repository = request.writable(kind, name)
    _need_branch(request, repository, revision)
    made = request.store.commit(repository, revision, request.body.splitlines())
    url = f"{request.base_url}/{'' if kind == 'models' else kind + '/'}{name}/commit/{made.oid}"
    return Response({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


def _download(request: Request, kind_prefix: str, name: str, revision: str, path: str) -> Response:
    commit = request.readable(kind_prefix.rstrip("/") or "models", name).at(revision)
    file = commit.files.get(path)
    if file is None:
        raise RefusedError(404, "Entry not found", "EntryNotFound")
    return _part_of(file, request.headers.get("range", ""), _download_headers(commit, file))


def _download_headers(commit: Commit, file: StoredFile) -> dict[str, str]:
    etag = f'"{file.etag}"'
    shown = {"X-Repo-Commit": commit.oid, "ETag": etag, "Accept-Ranges": "bytes"}
    large = {"X-Linked-Etag": etag, "X-Linked-Size": str(len(file.content))} if file.is_large else {}
    return shown | large


def _part_of(file: StoredFile, wanted: str, headers: dict[str, str]) -> Response:
    size = len(file.content)
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
    if span is None:
        return Response(file.content, headers=headers)
    first, last = int(span[1]), min(int(span[2] or size), size - 1)
    if first > last:
        return Response(b"", 416, headers | {"Content-Range": f"bytes */{size}"})
    return Response(file.content[first : last + 1], 206, headers | {"Content-Range": f"bytes {first}-{last}/{size}"})


_API = r"/api/(models|datasets)/((?:[^/]+/)??[^/]+)"
_PAGE = r"/(datasets/)?((?:[^/]+/)??[^/]+?)"

ROUTES: list[tuple[str, str, Callable[..., Response]]] = [
    ("GET", r"/api/whoami-v2", _whoami),
    ("POST", r"/api/validate-yaml", _validate_card),
    ("POST", r"/api/repos/create", _create),
    ("DELETE", r"/api/repos/delete", _delete),
    ("PUT", rf"{_API}/settings", _settings),
    ("GET HEAD", _API, _info),
    ("GET HEAD", rf"{_API}/revision/([^/]+)", _info),
    ("GET", rf"{_API}/commits/([^/]+)", _history),
    ("GET", rf"{_API}/refs", _branches),
    ("POST", rf"{_API}/branch/([^/]+)", _create_branch),
    ("GET", rf"{_API}/tree/([^/]+)(?:/(.*))?", _tree),
    ("POST", rf"{_API}/paths-info/([^/]+)", _paths_info),
    ("POST", rf"{_API}/preupload/([^/]+)", _preupload),
    ("POST", rf"{_API}/commit/([^/]+)", _commit),
    ("POST", rf"{_PAGE}\.git/info/lfs/objects/batch", _large_files_wanted),
    ("PUT", r"/_large/([0-9a-f]{64})", _large_file),
    ("PUT", r"/_large/([0-9a-f]{64})/part-([0-9]+)", _large_file_part),
    ("POST", r"/_large/([0-9a-f]{64})/all", _large_file_whole),
    ("POST", r"/_large_verify", _large_file_verified),
    ("GET HEAD", rf"{_PAGE}/resolve/([^/]+)/(.+)", _download),
]
