"""The learning-rate schedule and the loss scale of fp16, in and out of a checkpoint."""

from typing import Any

from torch.optim.lr_scheduler import LambdaLR


def go_to_step(schedule: LambdaLR, step: int) -> None:
    """Let the schedule, just made, go on as if it had been stepped so often.

    Only the place in it is kept in a checkpoint: its shape is the settings', which a caller may have changed knowingly.
    """
    schedule.last_epoch, schedule._step_count = step, step + 1
    rates = [base * factor(step) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def loss_scale(accelerator: Any, optimizer: Any) -> dict[str, Any] | None:
    """The state of what scales the loss in fp16: accelerate's GradScaler, or DeepSpeed's own; None in other types."""
    own = getattr(optimizer.optimizer, "loss_scaler", None)
    if own is not None:
        return {key: value for key, value in vars(own).items() if _is_number(value)} if own.dynamic else None
    scaler = accelerator.scaler
    return dict(scaler.state_dict()) if scaler is not None else None


def restore_loss_scale(accelerator: Any, optimizer: Any, state: dict[str, Any] | None) -> None:
    """Put it back; between DeepSpeed and the others only the scale itself has the same meaning."""
    if not state:
        return
    scale = state.get("scale", state.get("cur_scale"))
    own = getattr(optimizer.optimizer, "loss_scaler", None)
    if own is not None:
        vars(own).update(state if "cur_scale" in state else {"cur_scale": scale})
    elif accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(
            state if "cur_scale" not in state else accelerator.scaler.state_dict() | {"scale": scale}
        )


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float)
