"""The one interval of shares: exact where values are independent, within 0 and 1, never without width."""

import numpy as np
import pytest
from scipy.stats import binomtest

from alignlab.stats import Interval, groups_needed, pooled_share, share_interval


@pytest.mark.parametrize("yes", [0, 1, 7, 19, 20])
def test_independent_values_give_the_exact_binomial_interval(yes):
    found = share_interval([True] * yes + [False] * (20 - yes))
    exact = binomtest(yes, 20).proportion_ci(method="exact")
    assert found.bounds == pytest.approx((exact.low, exact.high), abs=1e-9)
    assert (found.mean, found.n, found.groups) == (yes / 20, 20, 20)


def test_copies_within_a_group_tell_nothing_new():
    once = share_interval([True] * 6 + [False] * 9)
    groups = [group for group in range(15) for _ in range(10)]
    often = share_interval(np.repeat([True] * 6 + [False] * 9, 10).tolist(), groups)
    assert often.bounds == pytest.approx(once.bounds)
    assert (often.n, often.groups) == (150, 15)
    ignoring = share_interval(np.repeat([True] * 6 + [False] * 9, 10).tolist())  # control: as if independent
    assert ignoring.half_width < often.half_width / 2


def test_independent_samples_of_many_groups_are_nearly_as_good_as_ungrouped_ones():
    values = np.random.default_rng(0).random(1000) < 0.3
    grouped = share_interval(values, np.repeat(np.arange(100), 10).tolist())
    assert grouped.half_width == pytest.approx(share_interval(values).half_width, rel=0.15)


def test_it_stays_within_0_and_1_and_has_width():
    rng = np.random.default_rng(1)
    for rate in (0.0, 0.01, 0.5, 0.99, 1.0):
        for _ in range(50):
            found = share_interval(rng.random(42) < rate, [index // 3 for index in range(42)])
            assert 0 <= found.low < found.high <= 1
            assert found.low <= found.mean <= found.high


def test_each_group_counts_once_or_each_value():
    assert share_interval([0.0, 0.0, 0.0, 1.0], "aaab").mean == 0.5
    assert pooled_share([0, 1], [3, 1]).mean == 0.25


def test_unequal_groups_count_as_fewer():
    """Nine groups of one sample and one of 91 tell less than ten of ten."""
    even = pooled_share([10] * 5 + [0] * 5, [10] * 10)
    uneven = pooled_share([0, 1, 0, 1, 0, 1, 0, 1, 0, 46], [1] * 9 + [91])
    assert uneven.half_width > 1.2 * even.half_width


def test_a_tie_is_half():
    assert share_interval([1.0, 0.5, 0.0, 0.5]).mean == 0.5


def test_the_unknown_is_left_out_and_counted():
    found = share_interval([True, None, False, float("nan")], "abca")
    assert (found.mean, found.n, found.missing, found.groups) == (0.5, 2, 2, 2)


def test_below_two_groups_there_is_none():
    assert share_interval([True, False], "aa") == Interval(0.5, None, None, 2, groups=1)
    assert share_interval([]) == Interval(None, None, None, 0, groups=0)
    assert pooled_share([0, 2], [0, 4]) == Interval(0.5, None, None, 4, groups=1)


def test_a_score_is_no_share():
    with pytest.raises(ValueError, match="within 0 and 1"):
        share_interval([0.5, 1.5])


def test_the_groups_that_are_needed():
    """A share of .6 is told from .5 with power .8 by ((1.96 * .5 + .8416 * sqrt(.24)) / .1)^2 = 194 values."""
    found = share_interval([True] * 6 + [False] * 4)
    assert groups_needed(found) == pytest.approx(194, abs=1)
    rng = np.random.default_rng(0)
    told = [share_interval(rng.random(194) < 0.6).low > 0.5 for _ in range(400)]
    assert np.mean(told) == pytest.approx(0.8, abs=0.06)
    assert groups_needed(share_interval([])) is None


def test_a_group_of_independent_samples_needs_fewer_groups():
    rng = np.random.default_rng(0)
    values, groups = rng.random(600) < 0.52, [index // 20 for index in range(600)]
    assert groups_needed(share_interval(values, groups)) < groups_needed(share_interval(values)) / 8
