"""Why an upload failed, in words of our own, and what to do about it."""

import re

from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from lft.publish.patience import LONGEST_WAIT_SECONDS, TRIES_AFTER_THE_FIRST, trouble_of

SIGN_IN = "hf auth login with a token that may write, or set HF_TOKEN, or name a file: --token-file"
MOST_CHARACTERS = 300


def explain(error: Exception, repo_name: str, token: str) -> tuple[str, str]:
    """What went wrong, and what to do. The Hub's own words are kept where they say more; the token never is in them."""
    trouble = trouble_of(error)
    if trouble is not None and trouble.wait_seconds > LONGEST_WAIT_SECONDS:
        return (
            f"{trouble.words} and asks to wait {trouble.wait_seconds:.0f} s (upload to {repo_name})",
            "try again then",
        )
    if trouble is not None:
        next_step = "check the network and try again" if "reached" in trouble.words else "try again later"
        return f"{trouble.words}, also the last of {TRIES_AFTER_THE_FIRST + 1} times (upload to {repo_name})", next_step
    if isinstance(error, HFValidationError):
        return f'"{repo_name}" is not a repository name', "username/repository, letters, digits, - _ . only"
    if isinstance(error, OfflineModeIsEnabled):
        return f"HF_HUB_OFFLINE is set, so nothing is uploaded to {repo_name}", "unset HF_HUB_OFFLINE"
    if isinstance(error, HfHubHTTPError):
        return _refusal(error, repo_name, token)
    said = _cleaned(str(error), token)
    if said.startswith("Invalid metadata in README.md"):
        return f"the Hub does not take README.md: {said}", "mend the lines between --- and --- at its top"
    return f"the upload to {repo_name} failed: {type(error).__name__}: {said}", "try again"


def _refusal(error: HfHubHTTPError, repo_name: str, token: str) -> tuple[str, str]:
    status, owner = error.response.status_code, repo_name.split("/")[0]
    words = _cleaned(error.server_message or "", token)
    said = f": {words}" if words else ""
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"the repository {repo_name} does not exist, or the token may not see it",
            "--create-new creates it (upload.create_new: true in a run file, create_new=True in Python)",
        )
    if status == 401:
        return f"the Hub does not accept the token (upload to {repo_name})", SIGN_IN
    if status == 403:
        return f"the token may not write to {repo_name}{said}", f"{SIGN_IN}; is {owner} your user name?"
    if status == 404:
        return f"the Hub does not know what was asked for (upload to {repo_name}){said}", "check name and revision"
    if status in (409, 412):
        return f"something else changes {repo_name} at the same time{said}", "try again"
    next_step = "mend that, then try again" if words and status < 500 else "try again later"
    return f"the Hub answered {status} to the upload to {repo_name}{said}", next_step


def _cleaned(text: str, token: str) -> str:
    """One line, not too long, without the token and what a terminal would obey."""
    line = " ".join(re.sub(r"[^\x20-\x7e\xa0-\U0010ffff]", " ", text.replace(token, "(the token)")).split())
    return line if len(line) <= MOST_CHARACTERS else line[:MOST_CHARACTERS] + "..."
