"""A small Hugging Face Hub on this machine, so that tests can use the real clients without a network."""

from .hub import LocalHub
from .store import Commit, StoredFile

__all__ = ["Commit", "LocalHub", "StoredFile"]
