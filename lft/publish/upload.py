"""Uploading an adapter folder to the Hugging Face Hub: adapter, tokenizer and card, nothing else."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from lft.core.errors import UploadError
from lft.core.paths import looks_local
from lft.publish.card import write_card

UPLOADED = (
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "lft.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
)
"""What leaves the machine: never checkpoints, logs or run/."""

BASE_MODEL_KEYS = {"adapter_config.json": "base_model_name_or_path", "lft.json": "base_model"}

SIGN_IN = "hf auth login with a token that may write, or set HF_TOKEN"


def upload_adapter(
    folder: Path, repo_name: str, *, token: str | None = None, create_new: bool = False, private: bool = False
) -> str:
    """Write the card, upload, and return the address. Doing it again with the same files changes nothing.

    Raises UploadError with what is wrong and what to do; the token is never part of it.
    """
    if not (folder / "adapter_config.json").exists():
        raise UploadError(
            f"{folder} holds no adapter to upload", next_step="train first, or name the output_dir of a run"
        )
    if not (token or get_token()):
        raise UploadError("there is no Hub token on this machine", next_step=SIGN_IN)
    write_card(folder, repo_name)
    api = HfApi(token=token)
    with TemporaryDirectory() as staging:
        stage(folder, Path(staging))
        _commit(api, Path(staging), repo_name, create_new=create_new, private=private)
    return f"{api.endpoint}/{repo_name}"


def _commit(api: HfApi, folder: Path, repo_name: str, *, create_new: bool, private: bool) -> None:
    try:
        if create_new:
            api.create_repo(repo_name, private=private, exist_ok=True)
        if private and not api.repo_info(repo_name).private:
            raise UploadError(
                f"{repo_name} is public, and a private upload was asked for; nothing was uploaded",
                next_step=f"make it private on its settings page, or choose another name than {repo_name}",
            )
        api.upload_folder(repo_id=repo_name, folder_path=folder, commit_message="Upload LoRA adapter")
    except UploadError:
        raise
    except Exception as error:  # the client raises its own, httpx's and the operating system's
        message, next_step = explain(error, repo_name)
        raise UploadError(message, next_step=next_step) from None


def stage(folder: Path, staging: Path) -> None:
    """Link what may leave the machine into `staging`; a base model's local path becomes its last part."""
    for path in {found for pattern in UPLOADED for found in folder.glob(pattern) if found.is_file()}:
        (staging / path.name).symlink_to(path.absolute())
    for name, key in BASE_MODEL_KEYS.items():
        path = staging / name
        notes = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        base = notes.get(key)
        if base and looks_local(base):
            path.unlink()
            path.write_text(json.dumps(notes | {key: Path(base).name}, indent=2) + "\n", encoding="utf-8")


def explain(error: Exception, repo_name: str) -> tuple[str, str]:
    """What went wrong, in words of our own, since the client's may repeat what it was given; and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, HFValidationError):
        return f'"{repo_name}" is not a repository name', "username/repository, letters, digits, - _ . only"
    if status == 401 and not isinstance(error, RepositoryNotFoundError):
        return f"the Hub does not accept the token (upload to {repo_name})", SIGN_IN
    if status == 403:
        return f"the token may not write to {repo_name}", f"{SIGN_IN}; is {repo_name.split('/')[0]} your user name?"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"the repository {repo_name} does not exist, or the token may not see it",
            "create_new=True (upload.create_new: true in a run file) creates it",
        )
    if isinstance(error, HfHubHTTPError):
        return f"the Hub answered {status} to the upload to {repo_name}", "try again later"
    return (
        f"the Hub cannot be reached (upload to {repo_name}): {type(error).__name__}",
        "check the network and try again",
    )
