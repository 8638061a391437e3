import pytest
import torch

from alignlab.training.losses import reward_tilt


def test_without_other_objectives_the_reference_is_untouched():
    assert reward_tilt(torch.zeros(2, 0), weights_M=torch.zeros(0), beta=0.1).equal(torch.zeros(2))


def test_the_tilt_is_the_weighted_reward_over_beta():
    got = reward_tilt(torch.tensor([[2.0, -1.0]]), weights_M=torch.tensor([0.3, 0.2]), beta=0.5)
    assert got.item() == pytest.approx((0.3 * 2 - 0.2 * 1) / 0.5)


def test_a_constant_per_prompt_leaves_the_difference_alone():
    rewards = torch.tensor([[1.0], [3.0]])
    options = {"weights_M": torch.tensor([0.7]), "beta": 0.2}
    plain = reward_tilt(rewards, **options)
    moved = reward_tilt(rewards + 5, **options)
    assert (moved[0] - moved[1]).item() == pytest.approx((plain[0] - plain[1]).item(), abs=1e-5)


def test_an_infinite_reward_names_its_row():
    rewards = torch.tensor([[1.0], [float("nan")]])
    with pytest.raises(ValueError, match="row 1"):
        reward_tilt(rewards, weights_M=torch.ones(1), beta=1.0)


def test_beta_must_be_positive():
    with pytest.raises(ValueError, match="beta=0"):
        reward_tilt(torch.zeros(1, 1), weights_M=torch.ones(1), beta=0)
