"""The trackers a run may tell its losses to, and which of them can be imported here."""

from importlib.util import find_spec
from typing import Literal

Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]
PACKAGES: dict[Tracker, str] = {
    "tensorboard": "tensorboardX",
    "wandb": "wandb",
    "trackio": "trackio",
    "mlflow": "mlflow",
}
"""What each is imported as, and installed by pip as."""


def missing_trackers() -> tuple[Tracker, ...]:
    """Those whose package is not installed."""
    return tuple(name for name, package in PACKAGES.items() if find_spec(package) is None)
