"""Where the token of an upload comes from. It is never printed, and no error holds it."""

import os
from pathlib import Path

from huggingface_hub import get_token
from huggingface_hub.errors import OIDCError

from lft.core.errors import UploadError
from lft.publish.refusals import SIGN_IN

MOST_CHARACTERS = 1000


def find_token(given: str | None, file: Path | None) -> str:
    """The token that is given, or else that in `file`, or else that of HF_TOKEN or `hf auth login`. Raises UploadError."""
    if given is None and file is not None:
        return _checked(_read(file), f"what {file} holds")
    try:
        token = given or get_token()
    except (OSError, ValueError) as error:  # a folder, or bytes that are no text, where it keeps a token
        words = f"the Hub's client cannot read its token: {getattr(error, 'strerror', None) or 'it is not text'}"
        raise UploadError(words, next_step=SIGN_IN) from None
    except OIDCError:
        raise UploadError("HF_OIDC_RESOURCE is set, and no token could be had for it", next_step=SIGN_IN) from None
    if not token:
        raise UploadError("there is no Hub token on this machine", next_step=SIGN_IN)
    return _checked(token, "the token")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        shown = f" {file}" if os.path.exists(file) else ""  # otherwise it may be the token itself
        raise UploadError(
            f"the token file{shown} cannot be read: {reason}", next_step="name a file that holds the token alone"
        ) from None


def _checked(token: str, name: str) -> str:
    """A token that a header can carry: otherwise the client's error would show it."""
    if not token or len(token) > MOST_CHARACTERS or not all("!" <= letter <= "~" for letter in token):
        raise UploadError(
            f"{name} is no token: one word of letters, digits and signs is expected", next_step=SIGN_IN
        ) from None
    return token
