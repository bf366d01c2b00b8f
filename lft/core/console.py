"""Saying a line to whoever called: the only place where the library prints."""

import sys


def say(line: str) -> None:
    """Print one line to standard output at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
