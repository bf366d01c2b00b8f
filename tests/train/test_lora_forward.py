"""Dropout of the adapters' inputs: the right share, no pattern, from the random state that checkpoints hold."""

import pytest
import torch

from lft.core.rank import Rank
from lft.train.lora_forward import drop_mask, quicken
from tests.train import styles

SIZE = torch.zeros(1000, 1001)  # no multiple of four


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5])
def test_the_share_that_is_dropped_is_right_and_neighbours_and_masks_are_independent(probability: float) -> None:
    torch.manual_seed(0)
    first, second = (~drop_mask(SIZE, probability, rank=0) for _ in range(2))
    for dropped, chance in [
        (first, probability),
        (first[:, 1:] & first[:, :-1], probability**2),
        (first[:, 4:] & first[:, :-4], probability**2),
        (first[1:] & first[:-1], probability**2),
        (first & second, probability**2),
    ]:
        deviation = (chance * (1 - chance) / dropped.numel()) ** 0.5
        # pairs overlap, so that their number varies a little more
        assert abs(dropped.double().mean().item() - chance) < 6 * deviation


def test_dropout_follows_the_random_state_and_differs_by_rank() -> None:
    torch.manual_seed(7)
    first, later = drop_mask(SIZE, 0.1, rank=0), drop_mask(SIZE, 0.1, rank=0)
    torch.manual_seed(7)
    assert torch.equal(drop_mask(SIZE, 0.1, rank=0), first)
    assert not torch.equal(later, first)
    torch.manual_seed(7)
    assert not torch.equal(drop_mask(SIZE, 0.1, rank=1), first)


def step(checkpointing: bool) -> dict[str, torch.Tensor]:
    """Gradients of one step with dropout."""
    model = styles.tiny("llama", dropout=0.3)
    assert quicken(model, Rank()) == 14
    if checkpointing:
        styles.checkpoint(model)
    torch.manual_seed(3)
    model(**styles.rows()[3], use_cache=False).loss.backward()
    return styles.gradients(model)


def test_gradient_checkpointing_repeats_the_same_dropout() -> None:
    assert styles.distance(step(checkpointing=True), step(checkpointing=False)) < 1e-6


def test_the_gradients_are_those_of_the_loss_with_this_very_dropout() -> None:
    model = styles.tiny("llama", dropout=0.3, dtype=torch.float64)
    quicken(model.double(), Rank())
    row = styles.rows()[3]

    def loss() -> torch.Tensor:
        torch.manual_seed(3)
        result: torch.Tensor = model(**row, use_cache=False).loss
        return result

    loss().backward()
    found = styles.gradients(model)
    for name, parameter in model.named_parameters():
        if name in found and ("0.self_attn.q_proj" in name or "1.mlp.down_proj" in name):
            direction, change = found[name] / found[name].norm(), 1e-3
            with torch.no_grad():
                parameter += change * direction
                higher = loss()
                parameter -= 2 * change * direction
                lower = loss()
                parameter += change * direction
            assert float((higher - lower) / (2 * change)) == pytest.approx(float(found[name].norm()), rel=1e-4)
