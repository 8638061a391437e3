"""A reward beside labels: the sign it must have, and the scale at which it is the labels' log-odds."""

import numpy as np
import pytest
import torch

from alignlab.engine.scoring.rows import EncodedPair
from alignlab.models.prompts import Encoded
from alignlab.rewards.agreement import MOST_PAIRS, Sign, agreement, fitted_scale, not_shown


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
        EncodedPair(f"{index:04}", f"group{index}", Encoded([0], [100 + value]), Encoded([0], [100]))
        for index, value in enumerate(values)
    ]


def test_agreement_is_the_share_of_pairs_and_ties_count_half():
    found = agreement(ByToken(), pairs_of([3, 2, 0, -1]))
    assert found.share.mean == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    assert found.share.n == 4
    assert found.spread == pytest.approx(np.std([3, 2, 0, -1], ddof=1))


@pytest.mark.parametrize(("factor", "sign"), [(1.0, Sign.RIGHT), (-1.0, Sign.REVERSED)])
def test_only_a_significant_disagreement_is_a_wrong_sign(factor, sign):
    values = [1] * 65 + [-1] * 35
    assert agreement(ByToken(factor), pairs_of(values)).sign is sign
    few = agreement(ByToken(factor), pairs_of(values[60:70]))
    assert few.sign is Sign.NOT_SHOWN, "ten pairs say nothing of it"


@pytest.mark.parametrize(
    ("num_pairs", "signs"),
    [
        (5, ["not shown", "not shown", "not shown", "not shown", "not shown"]),
        (20, ["reversed", "reversed", "not shown", "right", "right"]),
        (500, ["reversed", "reversed", "not shown", "right", "right"]),
    ],
)
def test_three_verdicts(num_pairs, signs):
    """0, 5, 50, 95 and 100 % of pairs ranked right; total reversal too has an interval, and is reversed."""
    for percent, sign in zip((0, 5, 50, 95, 100), signs, strict=True):
        right = round(num_pairs * percent / 100)
        found = agreement(ByToken(), pairs_of([1] * right + [-1] * (num_pairs - right)))
        assert found.sign == sign, percent
        assert found.as_record()["sign"] == sign
        assert (found.as_record()["prompts_needed"] is None) is (sign != "not shown")


def test_total_reversal_is_seen_from_six_pairs_on():
    assert agreement(ByToken(), pairs_of([-1] * 6)).sign is Sign.REVERSED


def test_a_sign_that_is_not_shown_says_how_many_prompts_would_tell():
    found = agreement(ByToken(), pairs_of([1] * 14 + [-1] * 10))
    assert found.sign is Sign.NOT_SHOWN
    needed = found.as_record()["prompts_needed"]
    assert 250 < needed < 300  # ((1.96 * .5 + .84 * sqrt(.583 * .417)) / .083)^2
    assert f"{needed} prompts" in not_shown(found.share)
    assert agreement(ByToken(), pairs_of([1] * 175 + [-1] * 125)).sign is Sign.RIGHT


def test_nothing_is_claimed_of_nothing():
    found = agreement(ByToken(), [])
    assert (found.share.mean, found.spread, found.scale, found.sign) == (None, None, None, Sign.NOT_SHOWN)


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
