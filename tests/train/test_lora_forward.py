"""Dropout of the adapters' inputs: the right share, no pattern, from the random state that checkpoints hold."""

import pytest
import torch

from lft.train.lora_forward import LoraUpdate, drop_mask

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


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_the_update_and_its_gradients_are_those_of_the_formula(probability: float) -> None:
    torch.manual_seed(0)
    x, weight, a, b = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 5, 6), (7, 6), (3, 6), (7, 3))
    )
    kept = drop_mask(x, probability, rank=0) if probability else None

    def update(x: torch.Tensor, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = LoraUpdate.apply(x @ weight.T, x, a, b, 1.7, kept)  # type: ignore[no-untyped-call]
        return result

    formula = x @ weight.T + 1.7 * (x if kept is None else x * kept) @ a.T @ b.T
    torch.testing.assert_close(update(x, weight, a, b), formula)
    assert torch.autograd.gradcheck(update, (x, weight, a, b))
