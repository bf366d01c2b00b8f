"""What transformers' callbacks leave to the services themselves: to go on with a run, to say where it is, and to end it.

The packages are imported by then, by the callbacks.
"""

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from lft.core.trackers import PACKAGES, Tracker


@dataclass(frozen=True, slots=True)
class Service:
    """One service; `module` is its package."""

    run: Callable[[Any], str]
    """What names the run that has begun, to go on with it later."""
    address: Callable[[Any], str]
    """Where people find it."""
    end: Callable[[Any, bool], None]
    """Tell the service that the run has ended, and whether well; returns when all that was told has arrived."""
    variables: Callable[[Path, str | None], Mapping[str, str]] = lambda _folder, _known: {}
    """With which its callback begins: by the folder of our run, and the service's run to go on with, if there is one."""
    run_name: Callable[[str, str | None], str] = lambda usual, _known: usual
    """What its run is called."""


def _wandb_address(wandb: Any) -> str:
    # asked for its address, an offline run warns
    return wandb.run.sync_dir if wandb.run.offline else str(wandb.run.url)


def _wandb_variables(folder: Path, known: str | None) -> Mapping[str, str]:
    """Files with those of our run instead of in the current directory."""
    return {"WANDB_DIR": str(folder)} | ({"WANDB_RUN_ID": known, "WANDB_RESUME": "allow"} if known else {})


def _mlflow_variables(_folder: Path, known: str | None) -> Mapping[str, str]:
    """No parameters again: they are there, MLflow refuses to change any, and another number of ranks would."""
    return {"MLFLOW_RUN_ID": known, "MLFLOW_MAX_LOG_PARAMS": "0"} if known else {}


def without_credentials(text: str) -> str:
    """A text without the names and passwords that stand before the hosts of its addresses."""
    return re.sub(r"//[^/\s]*@", "//", text)


def _mlflow_address(mlflow: Any) -> str:
    info, server = mlflow.active_run().info, without_credentials(mlflow.get_tracking_uri())
    return f"{server}, experiment {info.experiment_id}, run {info.run_id}"


SERVICES: Mapping[Tracker, Service] = {
    "wandb": Service(
        run=lambda wandb: str(wandb.run.id),
        address=_wandb_address,
        end=lambda wandb, is_well: wandb.finish(exit_code=int(not is_well)),
        variables=_wandb_variables,
    ),
    "mlflow": Service(
        run=lambda mlflow: str(mlflow.active_run().info.run_id),
        address=_mlflow_address,
        end=lambda mlflow, is_well: mlflow.end_run("FINISHED" if is_well else "FAILED"),
        variables=_mlflow_variables,
    ),
    "trackio": Service(
        run=lambda trackio: str(trackio.context_vars.current_run.get().name),
        address=lambda trackio: trackio.context_vars.current_space_id.get() or "trackio show",
        end=lambda trackio, _: trackio.finish() if trackio.context_vars.current_run.get() else None,
        # it goes on with whatever run has the same name, of other folders too
        run_name=lambda usual, known: known or f"{usual}-{token_hex(4)}",
    ),
}
"""TensorBoard is none: its files are in the run's folder."""


def service_of(name: Tracker) -> tuple[Service, Any] | None:
    """The service and its package; None for TensorBoard."""
    return (SERVICES[name], sys.modules[PACKAGES[name]]) if name in SERVICES else None
