"""Corr@k and its intervals: counted by hand, covered by simulation, and never counting an unknown as a no."""

import math

import numpy as np
import pytest

from alignlab.course_correction.statistics import CorrCurve, Scored, corr_curve, corr_difference


def sample(share_of_request, *, ks=(10, 20), samples=5, seed=0, prefix=""):
    """Rows whose requests have each their own chance to be corrected."""
    rng = np.random.default_rng(seed)
    return [
        Scored(f"{prefix}{number}", f"{prefix}{number}", k, index, bool(rng.random() < share))
        for number, share in enumerate(share_of_request)
        for k in ks
        for index in range(samples)
    ]


def test_a_share_is_a_count():
    rows = sample(np.linspace(0, 1, 30))
    curve = corr_curve(rows, ks=(10, 20))
    for index, k in enumerate((10, 20)):
        here = [row.corrected for row in rows if row.k == k]
        assert curve.corr[index] == sum(here) / len(here)
        assert curve.n[index] == len(here) == 150
    assert curve.mean == pytest.approx(sum(curve.corr) / 2)
    assert curve.reference_form() == pytest.approx([*curve.corr, curve.mean])


def test_an_unknown_is_not_a_no():
    rows = [Scored("a", "a", 10, 0, True), Scored("a", "a", 10, 1, None), Scored("b", "b", 10, 0, False)]
    curve = corr_curve(rows, ks=(10,))
    assert (curve.corr, curve.n, curve.unscored) == ([0.5], [2], [1])
    as_a_no = corr_curve([*rows[:1], Scored("a", "a", 10, 1, False), rows[2]], ks=(10,))
    assert as_a_no.corr != curve.corr


def test_nothing_scored_is_unknown():
    curve = corr_curve([Scored("a", "a", 10, 0, None)], ks=(10, 20))
    assert curve.corr == [None, None]
    assert curve.mean is None
    assert curve.ci95 == [None, None]
    assert curve.unscored == [1, 0]


def test_the_mean_is_over_what_is_known():
    rows = sample([0.5] * 20, ks=(10,))
    curve = corr_curve(rows, ks=(10, 80))
    assert curve.corr[1] is None
    assert curve.mean == pytest.approx(curve.corr[0])


def test_any_and_all_of_a_requests_samples():
    verdicts = {"a": (True, False), "b": (True, True), "c": (False, False), "d": (False, None), "e": (True, None)}
    rows = [Scored(name, name, 10, index, value) for name, pair in verdicts.items() for index, value in enumerate(pair)]
    curve = corr_curve(rows, ks=(10,))
    assert curve.any_of_n == [3 / 4]  # d may yet be a yes, so it is in no share
    assert curve.all_of_n == [1 / 4]  # e may yet be a no


def test_the_interval_covers():
    """95 % intervals over simulated studies hold the truth about 95 times in 100, also where requests differ much."""
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        shares = rng.beta(0.7, 0.7, size=60)
        curve = corr_curve(sample(shares, ks=(10,), seed=trial), ks=(10,))
        low, high = curve.ci95[0]
        covered += low <= 0.5 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_ignoring_the_groups_would_not_cover():
    """Control: with every sample a group of its own the interval is far too narrow."""
    rows = sample(np.random.default_rng(1).beta(0.3, 0.3, size=60), ks=(10,), samples=20)
    alone = [Scored(f"{row.group}/{row.sample}", row.request_id, row.k, row.sample, row.corrected) for row in rows]
    widths = [np.subtract(*reversed(corr_curve(each, ks=(10,)).ci95[0])) for each in (rows, alone)]
    assert widths[0] > 2 * widths[1]


def test_an_interval_always_has_width():
    curve = corr_curve(sample([0.0] * 20), ks=(10, 20))
    low, high = curve.ci95[0]
    assert (low, curve.corr[0]) == (0, 0)
    assert 0.1 < high < 0.3  # 20 groups, not 100 samples
    assert curve.mean_ci95[1] > 0
    assert corr_curve(sample([0.5]), ks=(10,)).ci95 == [None]


def test_equal_prompts_are_one_group():
    rows = sample([0.95, 0.05] * 15, ks=(10,))
    merged = [Scored(str(int(row.group) // 2), row.request_id, row.k, row.sample, row.corrected) for row in rows]
    width = [np.subtract(*reversed(corr_curve(each, ks=(10,)).ci95[0])) for each in (rows, merged)]
    assert width[1] < width[0]  # each prompt then holds one of either sort


def test_a_difference_is_paired():
    before = sample(np.linspace(0, 0.6, 60), seed=1)
    after = [Scored(row.group, row.request_id, row.k, row.sample, row.corrected or row.sample == 0) for row in before]
    change = corr_difference(before, after, ks=(10, 20))
    curves = [corr_curve(rows, ks=(10, 20)) for rows in (before, after)]
    assert change.difference == pytest.approx(
        [new - old for old, new in zip(curves[0].corr, curves[1].corr, strict=True)]
    )
    low, high = change.mean_ci95
    assert 0 < low < change.mean < high
    unpaired = math.hypot(*(np.subtract(*curve.mean_ci95) for curve in curves))
    assert high - low < unpaired


def test_a_difference_is_over_shared_groups():
    before, after = sample([0.0] * 5), sample([1.0] * 5) + sample([0.0] * 3, prefix="x")
    change = corr_difference(before, after, ks=(10,))
    assert (change.groups, change.left_out, change.difference) == ([5], 3, [1.0])


def test_a_difference_always_has_width():
    """Five of five requests turn, or none of 20 does: certain differences would be a claim that so few cannot make."""
    found = corr_difference(sample([0.0] * 5), sample([1.0] * 5), ks=(10,))
    assert found.ci95[0] == pytest.approx((0.262, 1), abs=1e-3)
    assert 0 < found.p_holm[0] < 0.05
    found = corr_difference(sample([0.0] * 20), sample([0.0] * 20), ks=(10,))
    assert found.ci95[0] == pytest.approx((-0.168, 0.168), abs=1e-3)
    assert found.p_holm == [1]
    assert corr_difference(sample([0.0]), sample([1.0]), ks=(10,)).ci95 == [None], "one request tells nothing"


def test_p_values_are_corrected_for_the_number_of_k():
    before, after = sample([0.2] * 40, ks=(10,), seed=1), sample([0.32] * 40, ks=(10,), seed=2)
    alone = corr_difference(before, after, ks=(10,)).p_holm[0]
    both = [
        [*rows, *(Scored(row.group, row.request_id, 20, row.sample, False) for row in rows)] for rows in (before, after)
    ]
    assert corr_difference(*both, ks=(10, 20)).p_holm == pytest.approx([2 * alone, 1])


def test_the_mean_is_over_requests_that_every_k_has():
    """Short answers have no long prefix; a mean over other requests at each k would mix k with the population."""
    long, short = sample([1.0] * 10, ks=(10, 80)), sample([0.0] * 30, ks=(10,), prefix="short")
    curve = corr_curve([*long, *short], ks=(10, 80))
    assert curve.corr == [0.25, 1.0]
    assert (curve.mean, curve.mean_groups, curve.mean_n) == (1.0, 10, 100)
    assert curve.reference_form()[-1] == pytest.approx(0.625), "the original's list keeps its own mean"


def test_no_mean_without_a_request_that_every_k_has():
    curve = corr_curve([*sample([1.0], ks=(10,)), *sample([1.0], ks=(80,), prefix="x")], ks=(10, 80))
    assert (curve.mean, curve.mean_ci95, curve.mean_groups) == (None, None, 0)


def test_no_difference_without_a_shared_group():
    change = corr_difference(sample([1.0]), sample([1.0], prefix="x"), ks=(10,))
    assert (change.mean, change.mean_ci95, change.groups) == (None, None, [0])


def test_a_record_reads_back():
    curve = corr_curve(sample(np.linspace(0, 1, 9)), ks=(10, 20, 30))
    assert CorrCurve.from_record(curve.as_record()) == curve


def test_the_order_of_the_rows_does_not_matter():
    rows = sample(np.linspace(0, 1, 30))
    assert corr_curve(rows, ks=(10, 20)) == corr_curve(rows[::-1], ks=(10, 20))
