"""One attention function under one name: inside each row of a pack in training, transformers' own SDPA everywhere else.

Which of the two is decided by the batch: packs bring `cu_seq_lens_q`, the borders of their rows, which models pass on to their
attention. Without it (evaluation, generation, padded batches), and wherever a layer wants more than plain causal attention,
the model's mask is used, which transformers builds from position_ids that start again at 0: always correct, only slower.
So nothing has to be switched, not even for the forward passes that gradient checkpointing repeats.
"""

import importlib.util
from typing import Any

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.utils.import_utils import is_flash_attn_2_available

from lft.train.segments import segment_attention

NAME = "lft_rows"
MORE_THAN_PLAIN = ("softcap", "s_aux", "position_bias")
"""What a layer may ask of its attention that the functions for packs cannot: then the mask is used."""


def row_borders(position_ids: torch.Tensor) -> dict[str, Any]:
    """What the model's attention needs to know of a batch of packs, as keyword arguments of its forward.

    position_ids (packs, tokens) start again at 0 at each row. transformers' names: cu_seq_lens_q and _k (rows + 1,) int32,
    the starts of all rows in the flattened batch and its end; max_length_q and _k, the longest row's tokens.
    """
    starts = (position_ids.flatten() == 0).nonzero()[:, 0]
    borders = torch.cat([starts, starts.new_tensor([position_ids.numel()])]).to(torch.int32)
    longest = int(position_ids.max()) + 1
    return {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders, "max_length_q": longest, "max_length_k": longest}


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: query (packs, heads, tokens, width), result (packs, tokens, heads, width)."""
    window = options.get("sliding_window")
    plain = (
        cu_seq_lens_q is not None
        and max_length_q is not None
        and not dropout
        and (window is None or window >= max_length_q)
        and query.shape[2] == key.shape[2]
        and query.shape[3] == value.shape[3]
        and options.get("is_causal") is not False
        and all(options.get(name) is None for name in MORE_THAN_PLAIN)
    )
    if not plain:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    assert cu_seq_lens_q is not None
    assert max_length_q is not None
    flat = [tokens.transpose(1, 2).flatten(0, 1) for tokens in (query, key, value)]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    kernel = _on_gpu if query.is_cuda else _on_cpu
    return kernel(flat, cu_seq_lens_q, max_length_q, scale).view(
        query.shape[0], query.shape[2], *flat[0].shape[1:]
    ), None


def _on_cpu(flat: list[torch.Tensor], borders: torch.Tensor, longest: int, scale: float) -> torch.Tensor:
    query, key, value = flat
    return segment_attention(query, key, value, tuple(borders.tolist()), scale)


def _on_gpu(flat: list[torch.Tensor], borders: torch.Tensor, longest: int, scale: float) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = flat
    result = varlen_attn(
        query, key, value, borders, borders, longest, longest, scale=scale, window_size=(-1, 0), enable_gqa=True
    )
    assert isinstance(result, torch.Tensor)
    return result


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)


def choose_attention(model: PreTrainedModel, device: str) -> tuple[str, str]:
    """The attention a model trains packs with, by its name in transformers, and the reason in words."""
    own = str(model.config._attn_implementation)
    half = model.dtype in (torch.float16, torch.bfloat16)
    if not model._supports_attention_backend:
        return own, f"{own} with a mask: {type(model).__name__} does not take another attention"
    if own not in ("sdpa", NAME):
        return own, f"{own} with a mask: what {type(model).__name__} chose for itself"
    if device == "cuda" and half and model._supports_flash_attn and is_flash_attn_2_available():
        return "flash_attention_2", "flash-attention, row by row"
    if device == "cuda" and not (half and importlib.util.find_spec("torch.nn.attention.varlen")):
        return own, "sdpa with a mask: neither flash-attention nor torch's varlen_attn can be used here"
    return NAME, f"row by row, {'with torch varlen_attn' if device == 'cuda' else 'on the CPU'}"


def rows_stay_apart(model: PreTrainedModel) -> bool:
    """Whether rows of a pack cannot see each other in this model, tried: a row after another one is as it is alone.

    False for models that mark places by other means than position_ids, or carry a state along, and for an attention that does
    not work here. Needs the weights: not for a model of which each rank holds a part (ZeRO-3).
    """
    vocabulary, device = int(model.config.get_text_config().vocab_size), model.device
    # 12 tokens: more than any convolution of a state-space model is wide
    row, before, instead = (torch.arange(start, start + 12, device=device)[None] % vocabulary for start in (0, 5, 9))
    places = torch.arange(12, device=device)[None]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            alone = model(input_ids=row, position_ids=places, use_cache=False).logits[0].float()
            after, otherwise = (_after(first, row, places, model) for first in (before, instead))
    except (TypeError, ValueError, RuntimeError):
        return False
    finally:
        model.train(was_training)
    largest = float(alone.abs().max())
    isolated = float((after - otherwise).abs().max()) <= 2 * torch.finfo(model.dtype).eps * largest
    # another shape, another order of sums: 4e-6 in float32, 0.1 in bf16 after 30 layers; wrong places 0.95 in GPT-2
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.3
    return isolated and float((after - alone).norm()) <= tolerance * float(alone.norm())


def _after(first: torch.Tensor, row: torch.Tensor, places: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    positions = torch.cat([places, places], dim=1)
    pack = torch.cat([first, row], dim=1)
    logits: torch.Tensor = model(
        input_ids=pack, position_ids=positions, use_cache=False, **row_borders(positions)
    ).logits
    return logits[0, first.shape[1] :].float()
