"""Paired differences, their p-values, and Holm's correction."""

import numpy as np
import pytest
from scipy.stats import ttest_rel

from alignlab.stats import Interval, holm, paired_difference


def test_many_groups_give_scipys_paired_t_test():
    rng = np.random.default_rng(0)
    before = rng.normal(size=30)
    after = before + 0.3 + 0.4 * rng.normal(size=30)
    found, oracle = paired_difference((before, range(30)), (after, range(30))), ttest_rel(after, before)
    assert found.p == pytest.approx(oracle.pvalue)
    ends = oracle.confidence_interval()
    assert found.interval.bounds == pytest.approx((ends.low, ends.high))
    assert (found.interval.n, found.interval.groups, found.left_out) == (60, 30, 0)


def test_pairing_narrows_what_the_prompts_share():
    rng = np.random.default_rng(1)
    prompts = 3 * rng.normal(size=40)
    before, after = prompts + 0.1 * rng.normal(size=40), prompts + 0.1 * rng.normal(size=40)
    paired = paired_difference((before, range(40)), (after, range(40)))
    apart = paired_difference((before, range(40)), (after[::-1], range(40)))
    assert paired.interval.half_width < apart.interval.half_width / 10


def test_groups_are_matched_by_name_and_the_rest_counted():
    found = paired_difference(([1.0, 2.0, 9.0], "abx"), ([3.0, None, 3.0, 4.0], "bcay"))
    assert (found.interval.mean, found.interval.groups, found.left_out) == (1.5, 2, 2)
    assert found.interval.missing == 1


def test_samples_of_a_group_are_one_value():
    once = paired_difference(([0, 1, 0, 1] * 5, range(20)), ([1, 1, 0, 1] * 5, range(20)), shares=True)
    groups = [group for group in range(20) for _ in range(7)]
    before, after = (np.repeat(values * 5, 7) for values in ([0, 1, 0, 1], [1, 1, 0, 1]))
    often = paired_difference((before, groups), (after, groups), shares=True)
    assert often.interval.bounds == pytest.approx(once.interval.bounds)
    assert (once.interval.n, often.interval.n) == (40, 280)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_equal_differences_have_width_too(shift):
    found = paired_difference(([0.0, 1.0, 0.5] * 3, range(9)), ([shift, 1.0 + shift, 0.5 + shift] * 3, range(9)))
    assert found.interval.low < shift < found.interval.high
    assert (found.p < 0.05) is (shift > 0)


@pytest.mark.parametrize(
    ("values", "groups"), [(([1.0, 2.0], [2.0, 3.0]), "aa"), (([1.0, 1.0], [1.0, 1.0]), "ab"), (([], []), "")]
)
def test_below_two_groups_or_without_any_spread_nothing_is_claimed(values, groups):
    found = paired_difference((values[0], groups), (values[1], groups))
    assert (found.interval.bounds, found.p) == (None, None)


def test_no_shared_group():
    found = paired_difference(([1.0], "a"), ([1.0], "b"))
    assert (found.interval, found.p, found.left_out) == (Interval(None, None, None, 0, 0, 0), None, 2)


@pytest.mark.parametrize("changed", [0, 3, 6, 9, 14])
def test_the_p_value_and_the_interval_agree(changed):
    after = [1.0] * changed + [0.0] * (40 - changed)
    found = paired_difference(([0.0] * 40, range(40)), (after, range(40)), shares=True)
    assert (found.p < 0.05) is (found.interval.low > 0)


def test_a_p_value_under_no_difference_is_below_a_twentieth_in_at_most_a_twentieth():
    rng = np.random.default_rng(2)
    for rate in (0.1, 0.5):
        worlds = rng.random((100, 2, 30)) < rate
        found = [paired_difference((a, range(30)), (b, range(30)), shares=True).p for a, b in worlds]
        assert np.mean(np.array(found) < 0.05) <= 0.08


def test_holm_by_hand():
    """Sorted .01 .02 .03 .04 times 4, 3, 2, 1, each at least the one before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, None, 0.4]) == [pytest.approx(0.8), None, pytest.approx(0.8)]
    assert holm([]) == []
    assert holm([0.9, 0.9]) == [1.0, 1.0]
