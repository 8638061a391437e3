"""Rewards that are exact opposites: a warning that says so, and a front on a straight line through the reference."""

import numpy as np
import pytest
import torch

from alignlab.front.exact import exact_point
from alignlab.jobs.rebel import _say_opposites


def test_the_front_of_opposites_is_a_line_through_the_reference():
    rewards_PS = np.random.default_rng(0).normal(size=(5, 400))

    def front(other_PS):
        rewards_PSM = np.stack([rewards_PS, other_PS], axis=-1)
        points = [exact_point(rewards_PSM, weights=[w, 1 - w], beta=2.0) for w in (0.1, 0.3, 0.5, 0.9)]
        return np.array([point.means_M for point in points]), rewards_PSM.mean(axis=(0, 1))

    points, reference = front(-2 * rewards_PS)
    steps = points - reference
    assert steps[:, 1] == pytest.approx(-2 * steps[:, 0], abs=1e-9)
    assert np.ptp(points[:, 0]) > 0.1, "w says how far along it"
    bent, middle = front(np.random.default_rng(1).normal(size=rewards_PS.shape))
    assert not np.allclose((bent - middle)[:, 1], -2 * (bent - middle)[:, 0], atol=0.1), "control"


def test_training_on_opposites_warns_of_the_line(capsys):
    longer_B = torch.tensor([3.0, 1.0, 2.0, 5.0])
    _say_opposites({"better": longer_B, "safer": -2 * longer_B})
    assert (
        "better and safer are exact opposites on these pairs: the front is a straight line" in capsys.readouterr().out
    )
    _say_opposites({"better": longer_B, "safer": torch.tensor([3.0, 1.0, -2.0, 0.0])})
    assert "opposites" not in capsys.readouterr().out, "control"
