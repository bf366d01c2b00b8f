"""The arithmetic that is counted is what torch does, layer by layer; padding and what is computed twice do not count."""

import copy
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lft.core.gpu_peaks import peak_flops
from lft.train.batches import PackRows, PadToLongest
from lft.train.flops import training_arithmetic
from tests.train import styles

TOKENS = 48


def counted_by_torch(style: str, monkeypatch: pytest.MonkeyPatch, layers: int) -> tuple[float, float]:
    """FLOPs of a step of one row by torch, and by the formula, whose attention counts no future tokens."""
    config = copy.deepcopy(styles.STYLES[style])
    config.num_hidden_layers = layers
    monkeypatch.setitem(styles.STYLES, style, config)
    model: Any = styles.tiny(style)
    model.get_base_model().set_attn_implementation("eager")
    ids = torch.randint(3, 300, (1, TOKENS))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    arithmetic = training_arithmetic(model)
    assert arithmetic is not None
    collate = PadToLongest(0)
    collate([{"input_ids": ids[0].numpy(), "labels": ids[0].numpy()}])
    own = arithmetic.flops(collate.tally)
    return float(counter.get_total_flops()), own + arithmetic.pair * collate.tally.pairs


@pytest.mark.parametrize("style", ["llama", "gpt2"])
def test_a_layer_needs_what_torch_counts(style: str, monkeypatch: pytest.MonkeyPatch) -> None:
    two, three = (counted_by_torch(style, monkeypatch, layers) for layers in (2, 3))
    real, counted = (more - fewer for more, fewer in zip(three, two, strict=True))
    assert counted == pytest.approx(real, rel=1e-6)
    # the first layer's inputs need no gradient, and all logits are computed, not those of the trained tokens alone
    assert two[1] == pytest.approx(two[0], rel=0.1)


def test_a_mixture_of_experts_is_not_counted() -> None:
    model: Any = styles.tiny("llama")
    model.get_base_model().config.num_local_experts = 8
    assert training_arithmetic(model) is None


def test_padding_is_no_work_and_rows_are_counted_one_by_one() -> None:
    rows = [{"input_ids": [5] * length, "labels": [-100] * (length - 2) + [5, 5]} for length in (4, 6, 10)]
    padded, packed = PadToLongest(0), PackRows(0)
    padded(rows)
    packed([rows[:2], rows[2:]])
    for tally in (padded.tally, packed.tally):
        assert (tally.tokens, tally.trained_tokens, tally.pairs) == (20, 6, 16 + 36 + 100)
    assert (padded.tally.places, packed.tally.places) == (30, 20)


def test_known_gpus_are_known_by_the_names_their_driver_gives() -> None:
    for name, half in [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("Tesla V100-PCIE-16GB", 112e12),
        ("Tesla T4", 65e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
    ]:
        assert peak_flops(name, "bf16") == half
    assert peak_flops("NVIDIA A100-SXM4-80GB", "fp32") == 156e12
    for unknown in ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA X1"):
        assert peak_flops(unknown, "bf16") is None
