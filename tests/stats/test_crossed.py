"""Means over prompts and seeds: scipy's tests as oracles, and coverage over worlds in which both are drawn anew."""

import numpy as np
import pytest
from scipy.stats import beta, ttest_1samp

from alignlab.stats import crossed_means, share_interval
from support.coverage import covered

WORLDS = 2000


def worlds(rng, num_seeds, num_prompts, seed_spread, shape=lambda rng, size: rng.normal(size=size)):
    """Scores of mean 0, (W, K, P): what a prompt, a seed and both together add."""
    prompts = shape(rng, (WORLDS, 1, num_prompts))
    seeds = seed_spread * rng.normal(size=(WORLDS, num_seeds, 1))
    return prompts + seeds + 0.5 * rng.normal(size=(WORLDS, num_seeds, num_prompts))


def test_one_seed_is_the_t_test_over_prompts():
    values_P = np.random.default_rng(0).normal(size=20)
    found = crossed_means(values_P[None, None])
    oracle = ttest_1samp(values_P, 0.3, alternative="greater")
    ends = ttest_1samp(values_P, 0).confidence_interval()
    assert [float(end[0]) for end in found.bounds()] == pytest.approx([ends.low, ends.high])
    assert float(found.chance_at_least(0.3)[0]) == pytest.approx(1 - oracle.pvalue)


def test_without_prompts_own_spread_it_is_the_t_test_over_seeds():
    of_seed_K = np.random.default_rng(1).normal(size=4)
    found = crossed_means(np.repeat(of_seed_K[:, None], 30, axis=1)[None])
    ends = ttest_1samp(of_seed_K, 0).confidence_interval()
    assert [float(end[0]) for end in found.bounds()] == pytest.approx([ends.low, ends.high])


def test_a_share_is_the_share_of_the_house():
    yes_P = np.array([1.0] * 17 + [0.0] * 3)
    found, own = crossed_means(yes_P[None, None], share_of=20), share_interval(yes_P, range(20))
    assert [float(end[0]) for end in found.bounds()] == pytest.approx(own.bounds)
    assert float(found.chance_at_least(0.8)[0]) == pytest.approx(beta.sf(0.8, 17.5, 3.5))
    assert [float(found.chance_at_least(value)[0]) for value in (0.0, 1.01)] == [1.0, 0.0]


def test_nothing_is_claimed_where_nothing_varies():
    found = crossed_means(np.ones((1, 3, 20)))
    assert np.isnan(found.bounds()).all()
    assert np.isnan(found.chance_at_least(0.5)).all()
    with pytest.raises(ValueError, match="two prompts or more"):
        crossed_means(np.ones((1, 3, 1)))


@pytest.mark.parametrize("num_prompts", [20, 60])
@pytest.mark.parametrize("seed_spread", [0.0, 0.15, 0.5, 2.0])
@pytest.mark.parametrize("num_seeds", [3, 5])
def test_seeds_and_prompts_are_covered(num_seeds, seed_spread, num_prompts):
    rng = np.random.default_rng([num_seeds, round(100 * seed_spread), num_prompts])
    values = worlds(rng, num_seeds, num_prompts, seed_spread)
    assert 0.935 <= covered(crossed_means(values).bounds(), 0.0) <= 0.975


def test_prompts_alone_or_seeds_alone_would_not_do():
    """Control: either part alone misses the truth, the seeds' t-interval because all answer the same prompts."""
    rng = np.random.default_rng(7)
    values = worlds(rng, 3, 20, 0.5)
    assert covered(crossed_means(values.mean(axis=1, keepdims=True)).bounds(), 0.0) < 0.9
    values = worlds(rng, 3, 20, 0.05)
    assert covered(crossed_means(values.mean(axis=2)[:, None]).bounds(), 0.0) < 0.8


def test_chances_are_kept():
    """Where the truth is as likely anywhere, of the times that a chance near p is said, p are right."""
    rng = np.random.default_rng(8)
    truth_W = rng.uniform(-3, 3, size=WORLDS)
    values = worlds(rng, 3, 20, 0.3) + truth_W[:, None, None]
    chance_W = crossed_means(values).chance_at_least(0.0)
    for low, high in ((0.02, 0.3), (0.3, 0.7), (0.7, 0.98)):
        within = (low < chance_W) & (chance_W < high)
        assert chance_W[within].mean() == pytest.approx((truth_W[within] >= 0).mean(), abs=0.08), within.sum()
