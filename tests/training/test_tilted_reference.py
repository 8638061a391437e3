import pytest
import torch

from alignlab.training.losses import tilted_reference


def test_without_other_objectives_the_reference_is_untouched():
    ref_B = torch.tensor([-12.0, -7.5])
    got = tilted_reference(ref_B, torch.zeros(2, 0), weights_M=torch.zeros(0), beta=0.1)
    assert got.equal(ref_B)


def test_the_tilt_is_the_weighted_reward_over_beta():
    got = tilted_reference(
        torch.tensor([-10.0]), torch.tensor([[2.0, -1.0]]), weights_M=torch.tensor([0.3, 0.2]), beta=0.5
    )
    assert got.item() == pytest.approx(-10 + (0.3 * 2 - 0.2 * 1) / 0.5)


def test_a_constant_per_prompt_leaves_the_difference_alone():
    rewards = torch.tensor([[1.0], [3.0]])
    options = {"weights_M": torch.tensor([0.7]), "beta": 0.2}
    plain = tilted_reference(torch.zeros(2), rewards, **options)
    moved = tilted_reference(torch.zeros(2), rewards + 5, **options)
    assert (moved[0] - moved[1]).item() == pytest.approx((plain[0] - plain[1]).item(), abs=1e-5)


def test_an_infinite_reward_names_its_row():
    rewards = torch.tensor([[1.0], [float("nan")]])
    with pytest.raises(ValueError, match="row 1"):
        tilted_reference(torch.zeros(2), rewards, weights_M=torch.ones(1), beta=1.0)


def test_beta_must_be_positive():
    with pytest.raises(ValueError, match="beta=0"):
        tilted_reference(torch.zeros(1), torch.zeros(1, 1), weights_M=torch.ones(1), beta=0)
