"""Coverage grids: 95 % intervals hold the truth in at least 93 of 100 simulated studies, also at extreme rates.

Each grid has the rates .02 to .98, few and many groups, values that are independent or alike within a group (ICC .4),
and 400 to 1,000 worlds a cell. Each has a control: the formula that was there before fails the same test.
"""

import numpy as np
import pytest
from scipy.special import stdtrit

from alignlab.stats import JudgeErrors, corrected_shares, mean_interval, paired_difference, pooled_share, share_interval
from alignlab.stats.differences import difference_bounds
from alignlab.stats.judge_errors import corrected_bounds
from alignlab.stats.shares import effective
from support.coverage import LEAST, RATES, WORLDS, below, covered, rates_WG

SHAPES = ((1, 0.0), (20, 0.0), (20, 0.4))
"""(samples a group, ICC)."""


def t_bounds(values_WG):
    """The t-interval over groups, with no width where there is no spread."""
    num_groups = values_WG.shape[1]
    half_W = stdtrit(num_groups - 1, 0.975) * values_WG.std(1, ddof=1) / np.sqrt(num_groups)
    return values_WG.mean(1) - half_W, values_WG.mean(1) + half_W


def percentile_bootstrap(values_WG, seed=0, resamples=400):
    """The bootstrap over groups that Corr@k had."""
    num_groups = values_WG.shape[1]
    draws_RG = np.random.default_rng(seed).multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=resamples)
    return np.percentile(values_WG @ draws_RG.T / num_groups, [2.5, 97.5], axis=1)


# shares


def share_grid(bounds, sizes=(20, 50, 200, 500)):
    found = {}
    for samples, icc in SHAPES:
        for num_groups in sizes:
            for rate in RATES:
                rng = np.random.default_rng([samples, round(10 * icc), num_groups, round(100 * rate)])
                yes_WG = rng.binomial(samples, rates_WG(rng, rate, icc, num_groups)).astype(float)
                found[samples, icc, num_groups, rate] = covered(bounds(yes_WG, samples), rate)
    return found


def share_bounds(yes_WG, samples):
    of_WG = np.full_like(yes_WG, samples)
    return effective(yes_WG, of_WG, num_values=samples * yes_WG.shape[1]).bounds()


def test_shares_are_covered():
    found = share_grid(share_bounds)
    assert len(found) == 84
    assert below(found) == {}


@pytest.mark.parametrize(
    ("old", "worst"),
    [(lambda yes, of: t_bounds(yes / of), 0.5), (lambda yes, of: percentile_bootstrap(yes / of), 0.85)],
    ids=["t", "percentile bootstrap"],
)
def test_the_old_intervals_of_shares_fail(old, worst):
    found = share_grid(old, sizes=(20, 50))
    assert len(below(found)) > 10
    assert min(found.values()) < worst


@pytest.mark.parametrize("interval", ["share_interval", "pooled_share"])
def test_the_grid_is_of_the_function_that_is_used(interval):
    rng = np.random.default_rng(3)
    for rate in (0.02, 0.5):
        yes_G = rng.binomial(20, rates_WG(rng, rate, 0.4, 50, worlds=1)[0])
        low, high = share_bounds(yes_G[None].astype(float), 20)
        values = [index < yes for yes in yes_G for index in range(20)]
        if interval == "pooled_share":
            found = pooled_share(yes_G, np.full(50, 20))
        else:
            found = share_interval(values, [group for group in range(50) for _ in range(20)])
        assert found.bounds == pytest.approx((low[0], high[0]))
        assert (found.n, found.groups) == (1000, 50)


# means


def mean_grid(bounds, sizes=(20, 50, 200)):
    """Rewards of which a share `rate` are lower by two standard deviations: skewed, as failures make rewards."""
    found = {}
    for samples, icc in SHAPES:
        for num_groups in sizes:
            for rate in RATES:
                rng = np.random.default_rng([7, samples, round(10 * icc), num_groups, round(100 * rate)])
                shape = (2 * WORLDS, num_groups)
                failed_WG = rng.binomial(samples, rates_WG(rng, rate, icc, *reversed(shape))) / samples
                shared_WG = np.sqrt(icc) * rng.normal(size=shape)
                own_WG = np.sqrt((1 - icc) / samples) * rng.normal(size=shape)
                found[samples, icc, num_groups, rate] = covered(bounds(shared_WG + own_WG - 2 * failed_WG), -2 * rate)
    return found


def test_means_are_covered():
    found = mean_grid(t_bounds)
    assert len(found) == 63
    assert below(found) == {}


def test_the_grid_of_means_is_of_the_function_that_is_used():
    values_G = np.random.default_rng(0).normal(size=20)
    low, high = t_bounds(values_G[None])
    assert mean_interval(values_G).bounds == pytest.approx((low[0], high[0]))


def test_means_with_normal_quantiles_and_no_groups_fail():
    """Control: 1.96 standard errors over all samples, as if those of one prompt were independent."""

    def naive(values_WG):
        half_W = 1.96 * values_WG.std(1) / np.sqrt(values_WG.shape[1] * 20)
        return values_WG.mean(1) - half_W, values_WG.mean(1) + half_W

    assert min(mean_grid(naive, sizes=(20,)).values()) < 0.5


# paired differences


def difference_grid(bounds, rates=RATES, sizes=(20, 50, 200)):
    """Corr@k of two runs on the same requests; the second corrects more by a true difference."""
    found = {}
    for samples, icc in SHAPES:
        for num_groups in sizes:
            for rate in rates:
                for difference in (0.0, 0.05, 0.1, -0.05, -0.1):
                    if not 0 <= rate + difference <= 1:
                        continue
                    seed = [samples, round(10 * icc), num_groups, round(100 * rate), round(100 * abs(difference))]
                    rng = np.random.default_rng([*seed, difference < 0])
                    before_WG = rates_WG(rng, rate, icc, num_groups)
                    room = (1 - before_WG) / (1 - rate) if difference > 0 else before_WG / rate
                    after_WG = np.clip(before_WG + difference * room, 0, 1)
                    both = [rng.binomial(samples, each_WG) for each_WG in (before_WG, after_WG)]
                    found[samples, icc, num_groups, rate, difference] = covered(
                        bounds((both[1] - both[0]) / samples), difference
                    )
    return found


@pytest.mark.slow
def test_paired_differences_are_covered():
    found = difference_grid(lambda differences_WG: difference_bounds(differences_WG, span=1.0))
    assert len(found) == 261
    assert below(found) == {}


@pytest.mark.parametrize(("old", "worst"), [(t_bounds, 0.85), (percentile_bootstrap, 0.8)])
def test_the_old_intervals_of_differences_fail(old, worst):
    found = difference_grid(old, rates=(0.02, 0.1, 0.98), sizes=(20, 50))
    assert len(below(found)) > 0.06 * len(found)
    assert min(found.values()) < worst


def test_the_grid_of_differences_is_of_the_function_that_is_used():
    rng = np.random.default_rng(0)
    for rate in (0.02, 0.5):
        before, after = (rng.random(60) < rate for _ in range(2))
        low, high = difference_bounds((after.astype(float) - before)[None], span=1.0)
        found = paired_difference((before, range(60)), (after, range(60)), shares=True)
        assert found.interval.bounds == pytest.approx((low[0], high[0]))


# Corr@k corrected for a judge's errors

SENSITIVITY, SPECIFICITY, SAMPLES, LABELS, WORLDS_CORRECTED = 0.85, 0.9, 5, 100, 400


def labelled(rng, truth_WN, verdict_WN, *, by_verdict):
    """Counts of (label, verdict) on LABELS samples a world: at random, or half of each verdict; shape (W,) each."""
    keys_WN = rng.random(truth_WN.shape)
    if by_verdict:  # the first LABELS/2 of either verdict
        ranks_WN = np.where(verdict_WN, keys_WN, np.inf), np.where(verdict_WN, np.inf, keys_WN)
        chosen_WN = np.zeros_like(verdict_WN)
        for ranks in ranks_WN:
            chosen_WN |= (ranks.argsort(1).argsort(1) < LABELS // 2) & np.isfinite(ranks)
    else:
        chosen_WN = keys_WN.argsort(1).argsort(1) < LABELS
    pairs = ((True, True), (True, False), (False, False), (False, True))
    return JudgeErrors(*(((truth_WN == t) & (verdict_WN == v) & chosen_WN).sum(1) for t, v in pairs))


def corrected_grid(bounds, *, by_verdict, sizes=(20, 50, 200)):
    found = {}
    for icc in (0.0, 0.4):
        for num_groups in sizes:
            for rate in RATES:
                rng = np.random.default_rng([11, round(10 * icc), num_groups, round(100 * rate), by_verdict])
                shape = (WORLDS_CORRECTED, num_groups, SAMPLES)
                truth = rng.random(shape) < rates_WG(rng, rate, icc, num_groups, WORLDS_CORRECTED)[..., None]
                verdict = np.where(truth, rng.random(shape) < SENSITIVITY, rng.random(shape) >= SPECIFICITY)
                flat = (WORLDS_CORRECTED, -1)
                errors = labelled(rng, truth.reshape(flat), verdict.reshape(flat), by_verdict=by_verdict)
                yes_WG = verdict.sum(2).astype(float)
                told = effective(yes_WG, np.full_like(yes_WG, SAMPLES), num_values=num_groups * SAMPLES)
                found[icc, num_groups, rate] = covered(bounds(told, errors), rate)
    return found


@pytest.mark.slow
def test_corrected_shares_are_covered_however_the_labels_were_chosen():
    def bounds(told, errors):
        return corrected_bounds(told, told.share, errors, seed=1, resamples=300)

    for by_verdict in (False, True):
        found = corrected_grid(bounds, by_verdict=by_verdict)
        assert len(found) == 42
        assert below(found) == {}


def test_the_old_correction_fails_where_labels_were_chosen_by_verdict():
    """Control: sensitivity and specificity straight from the counts, which is right for random labels alone."""

    def bounds(told, errors):
        rng, shape = np.random.default_rng(1), (300, WORLDS_CORRECTED)
        sensitivity = rng.beta(errors.true_yes + 0.5, errors.false_no + 0.5, size=shape)
        specificity = rng.beta(errors.true_no + 0.5, errors.false_yes + 0.5, size=shape)
        share = rng.beta(told.share * told.n + 0.5, (1 - told.share) * told.n + 0.5, size=shape)
        corrected = (share + specificity - 1) / np.maximum(sensitivity + specificity - 1, 1e-3)
        return np.percentile(np.clip(corrected, 0, 1), [2.5, 97.5], axis=0)

    found = corrected_grid(bounds, by_verdict=True, sizes=(50,))
    assert min(found.values()) < 0.3
    assert len(below(found)) > 5


def test_the_grid_of_corrections_is_of_the_function_that_is_used():
    yes_G, scored_G = np.arange(20.0) % 6, np.full(20, 5.0)
    errors = JudgeErrors(true_yes=30, false_no=5, true_no=50, false_yes=6)
    (found,) = corrected_shares(yes_G[:, None], scored_G[:, None], errors, seed=1)
    told = effective(yes_G, scored_G, num_values=100)
    assert found.bounds == pytest.approx(corrected_bounds(told, float(told.share), errors, seed=1, resamples=2000))


def test_the_least_coverage_is_not_a_formality():
    assert below({"a": LEAST - 0.001, "b": LEAST}) == {"a": LEAST - 0.001}
