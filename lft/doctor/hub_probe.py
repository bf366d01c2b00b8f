"""Who the Hub says we are, for lft doctor: printed as one line of JSON. Run as `python -m lft.doctor.hub_probe`.

In a process of its own, since a name server that does not answer holds up a process for as long as it likes. The token is
found by the Hub's client and is told to nobody else.
"""

import json
import sys
import urllib.error
import urllib.request
from typing import Any

SECONDS = 4


def main() -> None:
    """Print the fields of lft.doctor.facts.HubFacts."""
    sys.stdout.write(json.dumps(ask_hub()) + "\n")


def ask_hub() -> dict[str, Any]:
    """User, or why there is none."""
    try:
        from huggingface_hub import HfApi, constants, get_token
    except ImportError as error:
        return {"error": f"its client cannot be imported: {error}"}
    facts: dict[str, Any] = {"endpoint": constants.ENDPOINT}
    if constants.HF_HUB_OFFLINE:
        return facts | {"offline": "HF_HUB_OFFLINE is set", "has_token": get_token() is not None}
    if get_token() is None:
        return facts | {"error": _reach(constants.ENDPOINT)}
    facts["has_token"] = True
    try:
        return facts | {"user": HfApi().whoami()["name"]}
    except Exception as error:  # the client raises its own, its HTTP library's and the system's
        code = getattr(getattr(error, "response", None), "status_code", None)
        if code == 401:
            return facts | {"refused": True}
        words = f"it answers {code}" if code else _reach(constants.ENDPOINT)
        return facts | {"error": words or type(error).__name__}


def _reach(endpoint: str) -> str:
    """Why it cannot be reached; nothing where it can, whatever it answers."""
    try:
        with urllib.request.urlopen(endpoint, timeout=SECONDS):
            return ""
    except urllib.error.HTTPError:
        return ""
    except urllib.error.URLError as error:
        return str(getattr(error.reason, "strerror", None) or error.reason)
    except OSError as error:
        return str(error.strerror or error)


if __name__ == "__main__":
    main()
