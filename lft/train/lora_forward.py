"""LoRA's own arithmetic: in the base model's number type, with fewer passes over memory than peft's, and a cheaper dropout.

peft casts the input of an adapter up to float32, drops out, and multiplies there, or has autocast cast it down again. Here the
float32 weights are cast down instead: they are a thousand times smaller, and stay the masters that the optimizer updates, so
optimizer, gradient reduction, clipping and checkpoints need to know nothing of it.
"""

from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from torch.utils.weak import WeakTensorKeyDictionary

from lft.core.rank import Rank


def quicken(model: PeftModel, rank: Rank) -> int:
    """Let the plain LoRA layers of `model` train with this arithmetic; returns how many. The others stay peft's.

    Not under ZeRO-3, which gathers a weight only where its own module is called.
    """
    layers: list[Any] = [module for module in model.modules() if type(module) is Linear and not module.lora_variant]
    inputs = DroppedInputs(rank.rank)
    for layer in layers:
        layer.__class__ = QuickLinear
        layer.inputs = inputs
    return len(layers)


class QuickLinear(Linear):
    """peft's LoRA layer; in training, with one adapter, its update is computed here."""

    inputs: "DroppedInputs"

    def forward(self, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """From x (..., in) to (..., out)."""
        adapters = self.active_adapters
        plain = not (
            arguments or options or self.disable_adapters or self.merged or torch.is_autocast_enabled(x.device.type)
        )
        if not (plain and self.training and len(adapters) == 1 and adapters[0] in self.lora_A):
            return super().forward(x, *arguments, **options)
        name = adapters[0]
        probability = getattr(self.lora_dropout[name], "p", 0.0)
        dropped = self.inputs.of(x, probability) if probability else x
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        factor = self.scaling[name] / (1 - probability)
        result: torch.Tensor = LoraUpdate.apply(self.base_layer(x), dropped, a, b, factor)  # type: ignore[no-untyped-call]
        return result


class DroppedInputs:
    """Inputs after dropout, drawn once for all layers that read the same one (q, k and v), as loralib does."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self._known = WeakTensorKeyDictionary()

    def of(self, x: torch.Tensor, probability: float) -> torch.Tensor:
        """`x` with zeros in it, not scaled."""
        found: torch.Tensor | None = self._known.get(x)
        if found is None:
            found = Dropout.apply(x, drop_mask(x, probability, self.rank))  # type: ignore[no-untyped-call]
            self._known[x] = found
        return found


def drop_mask(x: torch.Tensor, probability: float, rank: int) -> torch.Tensor:
    """True where a value of `x` is kept; drawn from one number of torch's default generator, and the rank.

    So the state that the Trainer saves, and that gradient checkpointing puts back, decides it. torch draws number after number,
    5.6 ms for (1024, 576) against 0.3 here, where 64 bits decide four values, to 2**-16.
    """
    if x.is_cuda:
        return torch.empty_like(x, dtype=torch.bool).bernoulli_(1 - probability)
    seed = int(torch.randint(2**62, ()))
    drawn = np.random.SFC64([seed, rank]).random_raw(-(-x.numel() // 4)).view(np.uint16)[: x.numel()]
    return torch.from_numpy(drawn >= round(probability * 2**16)).view(x.shape)


class Dropout(torch.autograd.Function):
    """x * kept."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        """With kept (bool) like x."""
        ctx.save_for_backward(kept)
        return x * _as_numbers(kept, x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The gradient of x."""
        (kept,) = ctx.saved_tensors
        return gradient * _as_numbers(kept, gradient.dtype), None


def _as_numbers(kept: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    # bytes are converted three times as fast as bools, and multiplying by either takes longer than both steps
    return kept.view(torch.uint8).to(dtype)


class LoraUpdate(torch.autograd.Function):
    """result + x a' b' * factor, into the memory of `result`."""

    @staticmethod
    def forward(
        ctx: Any, result: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, factor: float
    ) -> torch.Tensor:
        """With result (..., out), x (..., in), a (r, in), b (out, r)."""
        low = x.flatten(0, -2) @ (a * factor).to(x.dtype).T
        result.flatten(0, -2).addmm_(low, b.to(x.dtype).T)
        ctx.mark_dirty(result)
        ctx.save_for_backward(x, a, b, low)
        ctx.factor = factor
        return result

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of result, x, a and b; those of a and b in their own number type."""
        x, a, b, low = ctx.saved_tensors
        g = gradient.flatten(0, -2)
        d_low = g @ b.to(g.dtype)
        d_a = (d_low.T @ x.flatten(0, -2)).to(a.dtype) * ctx.factor
        d_x = (d_low @ (a * ctx.factor).to(g.dtype)).view_as(x) if ctx.needs_input_grad[1] else None
        return gradient, d_x, d_a, (g.T @ low).to(b.dtype), None
