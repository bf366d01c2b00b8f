"""The optimizer's state whole, by the names of the parameters, whatever part of it each rank holds: out of it and into it.

So one checkpoint serves every strategy and any number of ranks. LoRA's state is small: two numbers for each trained one.
"""

from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from lft.train.adapter import Weights, trained_parameters

OptimizerState = dict[str, dict[str, torch.Tensor]]
"""Of each trained parameter: exp_avg, exp_avg_sq (both in its shape), step (a number), or what the optimizer has."""


def gather_optimizer(model: PeftModel, optimizer: Any) -> OptimizerState:
    """Copies of the state on the CPU. Every rank must call it; `optimizer` is the Trainer's, wrapped by accelerate."""
    zero = _zero(optimizer)
    if zero is not None:
        return _gather_zero(model, zero)
    found = ((name, optimizer.optimizer.state.get(parameter, {})) for name, parameter in trained_parameters(model))
    return {name: {key: _whole(value) for key, value in state.items()} for name, state in found if state}


def restore_optimizer(model: PeftModel, optimizer: Any, state: OptimizerState, weights: Weights) -> None:
    """Put back what `gather_optimizer` returned, on any number of ranks; `weights` are those of the same moment.

    ZeRO in half precision has float32 copies of the weights in the optimizer, which the model's own cannot give.
    """
    zero = _zero(optimizer)
    if zero is not None:
        _restore_zero(model, zero, state, weights)
        return
    for name, parameter in trained_parameters(model):
        if name in state:
            optimizer.optimizer.state[parameter] = {key: _part(value, parameter) for key, value in state[name].items()}


def _whole(value: Any) -> torch.Tensor:
    if isinstance(value, DTensor):
        value = value.full_tensor()
    if not isinstance(value, torch.Tensor):  # bitsandbytes counts its steps in an int
        return torch.tensor(value)
    return value.detach().to("cpu", copy=True)


def _part(value: torch.Tensor, parameter: nn.Parameter) -> Any:
    """What this rank holds of a state that belongs to `parameter`."""
    if value.dtype == torch.int64 and not value.dim():
        return int(value)
    if not value.dim():
        return value.clone()  # the step: torch's AdamW keeps it on the CPU
    if isinstance(parameter, DTensor):
        whole = value.to(parameter.device)
        return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value.to(parameter.device, copy=True)


def _zero(optimizer: Any) -> Any:
    """DeepSpeed's optimizer, which keeps the state in flat pieces; None under the other strategies."""
    return optimizer.optimizer if hasattr(optimizer.optimizer, "loss_scaler") else None


def _flat_weights(zero: Any) -> list[torch.Tensor]:
    """This rank's float32 weights, the keys of the inner optimizer's state: of ZeRO-3, or else of ZeRO-2."""
    flat: list[torch.Tensor] = (
        getattr(zero, "fp32_partitioned_groups_flat", None) or zero.single_partition_of_fp32_groups
    )
    return flat


def _gather_zero(model: PeftModel, zero: Any) -> OptimizerState:
    from deepspeed.utils import safe_get_full_optimizer_state

    flat = _flat_weights(zero)[0]
    own: dict[str, torch.Tensor] = zero.optimizer.state.get(flat, {})
    moments = [key for key, value in own.items() if value.shape == flat.shape]
    if own and hasattr(zero, "_lazy_init_hp_params_optimizer_state"):
        # ZeRO-2 finds the moments of all groups after the first one's step, when the others have none (DeepSpeed 0.19.8)
        zero._hp_optimizer_states_linked = False
        zero._lazy_init_hp_params_optimizer_state()
    return {
        name: {
            key: _whole(safe_get_full_optimizer_state(parameter, key) if key in moments else value)
            for key, value in own.items()
        }
        for name, parameter in trained_parameters(model)
        if own
    }


def _restore_zero(model: PeftModel, zero: Any, state: OptimizerState, weights: Weights) -> None:
    from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

    for own, any_state in _empty(zero, state):
        own.update(any_state)
    if hasattr(zero, "_lazy_init_hp_params_optimizer_state"):  # ZeRO-2 finds a parameter's piece through it
        zero._lazy_init_hp_params_optimizer_state()
    for name, parameter in trained_parameters(model):
        safe_set_full_fp32_param(parameter, weights[name].to(parameter.device))
        for key, value in state.get(name, {}).items():
            if value.dim():
                safe_set_full_optimizer_state(parameter, value.to(parameter.device), key)


def _empty(zero: Any, state: OptimizerState) -> Iterator[tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
    """The inner optimizer's state of each flat piece, and what it is to hold: zeros for moments, the numbers themselves."""
    example = next(iter(state.values()), {})
    for flat in _flat_weights(zero):
        yield (
            zero.optimizer.state[flat],
            {key: torch.zeros_like(flat) if value.dim() else value.clone() for key, value in example.items()},
        )
