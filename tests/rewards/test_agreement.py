"""A reward beside labels: the sign it must have, and the scale at which it is the labels' log-odds."""

import numpy as np
import pytest
import torch

from alignlab.engine.scoring.rows import EncodedPair
from alignlab.models.prompts import Encoded
from alignlab.rewards.agreement import MOST_PAIRS, agreement, fitted_scale


class ByToken:
    """Scores a response by its only token."""

    id = "by token"

    def __init__(self, factor=1.0):
        self.factor, self.asked = factor, 0

    def score_encoded(self, rows):
        self.asked = len(rows)
        return torch.tensor([self.factor * row.response_ids[0] for row in rows])


def pairs_of(values):
    """Pairs whose chosen response scores 100 + value and whose rejected one scores 100."""
    return [
        EncodedPair(f"{place:04}", f"group{place}", Encoded([0], [100 + value]), Encoded([0], [100]))
        for place, value in enumerate(values)
    ]


def test_agreement_is_the_share_of_pairs_and_ties_count_half():
    found = agreement(ByToken(), pairs_of([3, 2, 0, -1]))
    assert found.share.mean == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    assert found.share.n == 4
    assert found.spread == pytest.approx(np.std([3, 2, 0, -1], ddof=1))


@pytest.mark.parametrize(("factor", "wrong"), [(1.0, False), (-1.0, True)])
def test_only_a_significant_disagreement_is_a_wrong_sign(factor, wrong):
    values = [1] * 60 + [-1] * 40
    assert agreement(ByToken(factor), pairs_of(values)).is_reversed is wrong
    few = agreement(ByToken(factor), pairs_of(values[55:65]))
    assert not few.is_reversed, "ten pairs say nothing of it"


def test_nothing_is_claimed_of_nothing():
    found = agreement(ByToken(), [])
    assert (found.share.mean, found.spread, found.scale, found.is_reversed) == (None, None, None, False)


def test_at_most_so_many_pairs_and_the_same_whatever_the_order():
    values = list(np.random.default_rng(0).integers(-3, 4, size=2 * MOST_PAIRS))
    reward, pairs = ByToken(), pairs_of([int(value) for value in values])
    first = agreement(reward, pairs)
    assert reward.asked == 2 * MOST_PAIRS
    assert agreement(reward, pairs[::-1]) == first


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
def test_the_scale_tells_a_foreign_beta(factor):
    """Labels drawn at the log-odds `d`; rewards that are `factor * d` fit best when multiplied by 1 / factor."""
    rng = np.random.default_rng(0)
    differences = rng.normal(0, 2, size=20000)
    signs = np.where(rng.random(20000) < 1 / (1 + np.exp(-differences)), 1, -1)
    assert fitted_scale(factor * differences * signs) == pytest.approx(1 / factor, rel=0.06)


def test_no_scale_fits_where_all_agree_or_none_differs():
    assert fitted_scale(np.array([1.0, 2.0, 0.5])) is None
    assert fitted_scale(np.array([-1.0, -2.0])) is None
    assert fitted_scale(np.zeros(5)) is None
