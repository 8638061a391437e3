"""The population loss's minimiser is pi_ref exp(w.r/beta), found by the code that trains real models."""

import pytest
import torch

from alignlab.training.losses import PreferenceLoss
from support.enumerable import ODDS, TableModel, any_two, logps_of, minimise, population_rows

BETA = 0.5
TRAINED = torch.tensor(ODDS).log()
OTHERS = torch.tensor(
    [[0.3, -1.2], [-0.8, 0.4], [1.1, 0.9], [-0.2, -0.5], [0.6, 1.3], [-1.4, 0.1], [0.9, -0.7], [-0.5, 0.2]]
)


def kl_to_theory(weights, tmp_path, *, margin_scale=1.0):
    """KL(pi* || trained), nats; weights of the trained objective and of the others."""
    weight, *others = weights
    rewards = OTHERS[:, : len(others)]
    reference = logps_of(TableModel())
    optimum = torch.log_softmax((reference + (weight * TRAINED + rewards @ torch.tensor(others)) / BETA).double(), 0)
    rows = population_rows(margin_scale * rewards, others, beta=BETA, ref_logps_B=reference)
    loss = PreferenceLoss("sigmoid", BETA / weight)
    trained = torch.log_softmax(logps_of(minimise(TableModel(), rows, loss=loss, folder=tmp_path)).double(), 0)
    return float((optimum.exp() * (optimum - trained)).sum())


@pytest.mark.parametrize("weight", [0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
def test_two_objectives(weight, tmp_path):
    others = [] if weight == 1 else [1 - weight]
    assert kl_to_theory([weight, *others], tmp_path) < 1e-6


def test_three_objectives(tmp_path):
    assert kl_to_theory([0.5, 0.3, 0.2], tmp_path) < 1e-6


@pytest.mark.parametrize("wrong", [-1.0, 5.0, 0.0], ids=["sign", "scale", "missing"])
def test_a_wrong_margin_is_seen(wrong, tmp_path):
    assert kl_to_theory([0.5, 0.5], tmp_path, margin_scale=wrong) > 1e-2


def regressed(weights, tmp_path, *, name="squared", threshold=100.0, scale=1.0):
    """KL(pi* || trained) of rebel, nats, where all objectives enter as rewards."""
    rewards = torch.cat([TRAINED[:, None], OTHERS], dim=1)[:, : len(weights)]
    reference = logps_of(TableModel())
    optimum = torch.log_softmax((reference + rewards @ torch.tensor(weights) / BETA).double(), 0)
    rows = any_two(scale * rewards, weights, beta=BETA, ref_logps_B=reference)
    loss = PreferenceLoss(name, BETA, threshold=threshold)
    trained = torch.log_softmax(logps_of(minimise(TableModel(), rows, loss=loss, folder=tmp_path)).double(), 0)
    return float((optimum.exp() * (optimum - trained)).sum())


@pytest.mark.parametrize("weights", [[1.0], [0.02, 0.98], [0.5, 0.5], [0.9, 0.1], [0.5, 0.3, 0.2]])
def test_reward_differences_without_labels(weights, tmp_path):
    assert regressed(weights, tmp_path) < 1e-6


@pytest.mark.parametrize(("name", "threshold"), [("huber", 0.5), ("clipped", 4.0)])
def test_other_losses_of_reward_differences(name, threshold, tmp_path):
    assert regressed([0.5, 0.5], tmp_path, name=name, threshold=threshold) < 1e-6


def test_wrong_reward_differences_are_seen(tmp_path):
    assert regressed([0.5, 0.5], tmp_path, scale=-1.0) > 1e-2


def test_the_responses_are_all_there_are():
    assert logps_of(TableModel()).exp().sum() == pytest.approx(1, abs=1e-6)
