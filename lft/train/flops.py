"""The arithmetic that training needs, counted from the layers of a model: the numerator of model FLOPs utilisation."""

from dataclasses import dataclass
from typing import cast

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lft.core.gpu_peaks import peak_flops
from lft.core.precision import Device
from lft.core.settings import Precision
from lft.train.batches import Tally
from lft.train.cpu_speed import PEAK_SHAPE, giga_flops
from lft.train.model import DTYPES

FROZEN, TRAINED = 4, 6
"""FLOPs for each weight and token: two in the forward pass and two for the gradient of what the layer was given; two more for
the gradient of the weight, where it is trained (Kaplan et al. 2020, arXiv:2001.08361, section 2.1)."""
CAUSAL_ATTENTION = 6
"""FLOPs for each layer, head, width and pair of tokens of a row: queries with keys and weights with values, two each, three
times for forward and backward pass, of which causal attention needs one half (Dao 2023, arXiv:2307.08691, section 4.1)."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """FLOPs of forward and backward pass: for each token, for each trained one, for each pair of tokens of a row."""

    token: float
    trained_token: float
    pair: float

    def flops(self, tally: Tally) -> float:
        """What the rows of `tally` need."""
        return self.token * tally.tokens + self.trained_token * tally.trained_tokens + self.pair * tally.pairs


def training_arithmetic(model: PeftModel) -> Arithmetic | None:
    """Of every linear layer and of attention, with the vocabulary's projection for trained tokens alone.

    Norms, activations and the lookup of embeddings are left out, as is usual. None for mixtures of experts, of which a token
    passes a part that the layers do not tell. Under sharding too: a layer knows its whole shape.
    """
    base = cast(PreTrainedModel, model.get_base_model())
    config = base.config.get_text_config()
    if any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return None
    head = base.get_output_embeddings()
    token = trained_token = 0.0
    for module in base.modules():
        if isinstance(module, nn.Linear | Conv1D):
            trains = module.weight.requires_grad
            flops = float((TRAINED if trains else FROZEN) * _weights(module))
            if module is head:
                trained_token += flops
            else:
                token += flops
    heads = getattr(config, "num_attention_heads", 0)
    width = getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1)
    return Arithmetic(token, trained_token, float(CAUSAL_ATTENTION * config.num_hidden_layers * heads * width))


def _weights(module: nn.Linear | Conv1D) -> int:
    return module.in_features * module.out_features if isinstance(module, nn.Linear) else int(module.nx * module.nf)


def device_peak(device: Device, precision: Precision) -> float | None:
    """FLOP/s of one device: by its data sheet, or a CPU rank's measured with its threads (0.1 s); None where unknown."""
    if device == "cuda":
        return peak_flops(torch.cuda.get_device_name(), precision)
    return 1e9 * giga_flops(DTYPES[precision], PEAK_SHAPE)
