"""Uploading an adapter folder to the Hugging Face Hub: adapter, tokenizer, card and loss picture, nothing else.

All of it is one commit: the repository has all files of an upload, or is as it was.
"""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HFValidationError, RevisionNotFoundError
from huggingface_hub.utils import validate_repo_id

from lft.core.errors import UploadError
from lft.core.paths import looks_local
from lft.core.run_dir import RunDir
from lft.core.settings import UploadSettings
from lft.core.words import counted, data_size
from lft.publish.base_model import license_on_hub
from lft.publish.card import Adapter, card_text, is_own_card, write_card
from lft.publish.hub_token import find_token
from lft.publish.patience import persistently, reporting_trouble
from lft.publish.refusals import explain

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
UPLOADED = (
    *ADAPTER,
    "README.md",
    "lft.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
)
"""What leaves the machine, with the loss picture: never checkpoints, logs or anything else of run/."""

BASE_MODEL_KEYS = {"adapter_config.json": "base_model_name_or_path", "lft.json": "base_model"}
LARGE_BYTES = 10 * 2**20
"""From here on a file may take seconds, and is announced."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What the Hub has now."""

    url: str
    is_new: bool
    """Whether a commit was made; otherwise all files were there already."""
    private: bool
    files: int
    size_bytes: int

    def describe(self) -> str:
        """`https://huggingface.co/me/support-lora (private, 6 files, 27 MiB)`."""
        visible = "private" if self.private else "public"
        return f"{self.url} ({visible}, {counted(self.files, 'file')}, {data_size(self.size_bytes)})"


def upload_adapter(
    folder: Path, wish: UploadSettings, *, token: str | None = None, announce: Callable[[str], None] = lambda _: None
) -> Uploaded:
    """Write the card and upload. Doing it again with the same files makes no commit.

    Trouble that may pass is waited for, a minute in all, and announced. Raises UploadError with what is wrong and what to
    do; the token is never part of it.
    """
    _need_adapter(folder)
    token = find_token(token, wish.token_file)
    api, repo_name = HfApi(token=token), str(wish.repo_name)
    try:
        with reporting_trouble(), _without_log_of_no_change():
            adapter = Adapter.in_folder(folder)
            license = license_on_hub(api, adapter.base, adapter.base_revision)
            write_card(folder, repo_name, license, wish.revision)
            files, seen = contents(folder), list[str]()
            return persistently(lambda: _publish(api, wish, files, seen, announce), announce)
    except UploadError:
        raise
    except Exception as error:  # the client raises its own, its HTTP library's and the operating system's
        message, next_step = explain(error, repo_name, token)
        raise UploadError(message, next_step=next_step) from None


def _publish(
    api: HfApi, wish: UploadSettings, files: dict[str, Path | bytes], seen: list[str], announce: Callable[[str], None]
) -> Uploaded:
    """One try; `seen` collects the newest commits that tries found. Each step may be done again, so a try may too.

    The commit names the one it follows. One whose answer was lost is found by the next try, in which no file differs any
    more; one that arrives late cannot follow twice.
    """
    repo_name, size_bytes = str(wish.repo_name), _sizes(files)
    if wish.create_new:
        api.create_repo(repo_name, private=wish.private, exist_ok=True)
    is_private = bool(api.repo_info(repo_name).private)
    if wish.private and not is_private:
        raise UploadError(
            f"{repo_name} is public, and a private upload was asked for; nothing was uploaded",
            next_step=f"make it private on its settings page, or choose another name than {repo_name}",
        )
    seen.append(_newest_commit(api, wish, announce))
    # new ones each time: they hold what the Hub has said of the files there. One by one, since the client has several
    # sent by threads that keep a stopped process alive
    additions = [
        CommitOperationAdd(name, source if isinstance(source, bytes) else str(source)) for name, source in files.items()
    ]
    for addition in additions:
        if size_bytes[addition.path_in_repo] >= LARGE_BYTES:
            announce(f"sending {addition.path_in_repo}, {data_size(size_bytes[addition.path_in_repo])}")
        api.preupload_lfs_files(repo_name, [addition], revision=wish.revision)
    summary, _, description = wish.commit_message.partition("\n")
    commit = api.create_commit(
        repo_name,
        additions,
        commit_message=summary,
        commit_description=description.strip(),
        revision=wish.revision,
        parent_commit=seen[-1],
    )
    is_new = commit.oid != seen[0]
    return Uploaded(f"{api.endpoint}/{wish.page}", is_new, is_private, len(files), sum(size_bytes.values()))


def _newest_commit(api: HfApi, wish: UploadSettings, announce: Callable[[str], None]) -> str:
    """That of the branch, which is made from main where there is none."""
    repo_name = str(wish.repo_name)
    try:
        return str(api.repo_info(repo_name, revision=wish.revision).sha)
    except RevisionNotFoundError:
        assert wish.revision is not None
        announce(f"{repo_name} has no branch {wish.revision}; making it from main")
        api.create_branch(repo_name, branch=wish.revision, exist_ok=True)
        return str(api.repo_info(repo_name, revision=wish.revision).sha)


def listing(folder: Path, wish: UploadSettings) -> list[str]:
    """What an upload would send, and where; without a network, and nothing is written. Raises UploadError."""
    _need_adapter(folder)
    try:
        validate_repo_id(str(wish.repo_name))
    except HFValidationError as error:
        message, next_step = explain(error, str(wish.repo_name), "")
        raise UploadError(message, next_step=next_step) from None
    files = contents(folder)
    if not is_own_card(folder / "README.md"):
        files["README.md"] = card_text(folder, str(wish.repo_name), revision=wish.revision).encode()
    sizes = _sizes(dict(sorted(files.items())))
    width = max(map(len, sizes))
    made = ", made if it does not exist" if wish.create_new else ""
    visible = ", private" if wish.private else ""
    return [
        f"would go to {constants.ENDPOINT}/{wish.page} (branch {wish.revision or 'main'}{made}{visible})",
        *(f"  {name:<{width}}  {data_size(size)}" for name, size in sizes.items()),
        f"{counted(len(sizes), 'file')}, {data_size(sum(sizes.values()))}; nothing was sent",
    ]


def _need_adapter(folder: Path) -> None:
    missing = [name for name in ADAPTER if not (folder / name).exists()]
    if missing:
        raise UploadError(
            f"{folder} holds no adapter to upload: {' and '.join(missing)} missing",
            next_step="train first, or name the output_dir of a run",
        )


def contents(folder: Path) -> dict[str, Path | bytes]:
    """What may leave the machine, by name; a base model's local path becomes its last part. Raises UploadError."""
    found = {path.name: path for pattern in UPLOADED for path in folder.glob(pattern) if path.is_file()}
    picture = RunDir(folder).loss_picture
    files: dict[str, Path | bytes] = {**found, **({picture.name: picture} if picture.exists() else {})}
    for name, key in BASE_MODEL_KEYS.items():
        notes = _notes(found[name]) if name in found else {}
        base = notes.get(key)
        if base and looks_local(base):
            files[name] = (json.dumps(notes | {key: Path(base).name}, indent=2) + "\n").encode()
    return dict(sorted(files.items()))


def _notes(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise UploadError(f"{path} is damaged: a JSON object is expected", next_step="train again, or mend the file")
    return found


def _sizes(files: dict[str, Path | bytes]) -> dict[str, int]:
    return {name: len(it) if isinstance(it, bytes) else it.stat().st_size for name, it in files.items()}


@contextmanager
def _without_log_of_no_change() -> Iterator[None]:
    """The client warns of an upload that changes nothing, which is said in our own words."""
    logger = logging.getLogger("huggingface_hub.hf_api")

    def is_other(record: logging.LogRecord) -> bool:
        return "No files have been modified" not in record.getMessage()

    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
