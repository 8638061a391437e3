"""Front metrics: identities first, then what must be refused or stay unknown."""

import math

import numpy as np
import pytest

from alignlab.front.exact import exact_point
from alignlab.front.metrics import (
    ExactCurve,
    distance_to_exact,
    exact_curve,
    hypervolume,
    monotonicity,
    nadir,
    non_dominated,
)


def test_hypervolume_of_one_point_is_its_rectangle():
    found = hypervolume([[3.0, 5.0]], reference=(1.0, 2.0))
    assert found.volume == pytest.approx((3 - 1) * (5 - 2))
    assert (found.reference, found.num_inside) == ((1.0, 2.0), 1)


def test_hypervolume_of_a_staircase_by_hand():
    assert hypervolume([[1, 3], [2, 2], [3, 1]], reference=(0, 0)).volume == pytest.approx(3 + 2 + 1)


def test_hypervolume_in_three_dimensions_is_a_box():
    assert hypervolume([[1.0, 2.0, 3.0]], reference=(-1.0, 0.0, 0.0)).volume == pytest.approx(2 * 2 * 3)


def test_dominated_point_repeated_point_and_order_change_no_hypervolume():
    points = np.random.default_rng(0).normal(size=(9, 3))
    volume = hypervolume(points, reference=(-4, -4, -4)).volume
    assert hypervolume(points[::-1], reference=(-4, -4, -4)).volume == pytest.approx(volume)
    assert hypervolume(np.vstack([points, points[3] - 0.1]), reference=(-4, -4, -4)).volume == pytest.approx(volume)
    assert hypervolume(np.vstack([points, points[:1]]), reference=(-4, -4, -4)).volume == pytest.approx(volume)


def test_hypervolume_is_invariant_under_translation_and_scales_by_axis():
    points = np.random.default_rng(1).normal(size=(6, 2))
    volume = hypervolume(points, reference=(-3, -3)).volume
    assert hypervolume(points + np.array([5, -7]), reference=(2, -10)).volume == pytest.approx(volume)
    assert hypervolume(points * np.array([2, 3]), reference=(-6, -9)).volume == pytest.approx(6 * volume)


def test_points_that_do_not_beat_the_reference_count_nothing():
    found = hypervolume([[2.0, -1.0], [0.0, 5.0]], reference=(0.0, 0.0))
    assert (found.volume, found.num_inside) == (0.0, 0)


def test_a_better_point_adds_hypervolume():  # negative control: the metric is maximised, not minimised
    assert hypervolume([[1, 1], [2, 2]], reference=(0, 0)).volume > hypervolume([[1, 1]], reference=(0, 0)).volume


@pytest.mark.parametrize(
    ("values", "reference"),
    [([[1, math.nan]], (0, 0)), ([[1, 2]], (0, 0, 0)), ([[1, 2]], (0, math.nan)), ([1, 2], (0, 0))],
)
def test_hypervolume_refuses_what_it_cannot_measure(values, reference):
    with pytest.raises(ValueError, match="must"):
        hypervolume(values, reference=reference)


def test_non_dominated_keeps_ties_and_drops_weakly_worse():
    assert non_dominated([[1, 1], [1, 1], [0, 2], [1, 0], [0, 1]]).tolist() == [True, True, True, False, False]


def test_non_dominated_matches_the_definition():
    points = np.random.default_rng(2).integers(0, 5, size=(40, 3))
    by_hand = [not any((q >= p).all() and (q > p).any() for q in points) for p in points]
    assert non_dominated(points).tolist() == by_hand
    assert 0 < sum(by_hand) < 40


def test_non_dominated_of_nothing_is_nothing():
    assert non_dominated(np.empty((0, 2))).shape == (0,)


def test_nadir_ignores_dominated_points():
    assert nadir([[0, 3], [2, 1], [-5, -5]]) == (0, 1)


def test_distance_of_the_exact_front_to_itself_is_zero():
    front = [[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]]
    assert distance_to_exact(front, exact=front).epsilon == pytest.approx(0.0)
    assert distance_to_exact(front, exact=front).igd_plus == pytest.approx(0.0)


def test_distance_of_a_shifted_front_is_the_shift():
    front = np.array([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]])
    found = distance_to_exact(front - 0.25, exact=front)
    assert found.epsilon == pytest.approx(0.25)
    assert found.igd_plus == pytest.approx(0.25 * math.sqrt(2))


def test_going_beyond_the_exact_front_costs_nothing():
    found = distance_to_exact([[1.5, 1.5]], exact=[[1.0, 1.0]])
    assert (found.epsilon, found.igd_plus) == (pytest.approx(-0.5), pytest.approx(0.0))


def test_distance_refuses_other_axes():
    with pytest.raises(ValueError, match="same axes"):
        distance_to_exact([[1, 2]], exact=[[1, 2, 3]])


def test_monotonicity_of_order_and_its_reverse():
    found = monotonicity([0.1, 0.5, 0.9], {"up": [1, 2, 30], "down": [3, 2, 1], "flat": [1, 1, 1]})
    assert (found["up"].rho, found["down"].rho, found["flat"].rho) == (pytest.approx(1), pytest.approx(-1), None)


def test_monotonicity_leaves_out_the_unknown():
    found = monotonicity([0.1, 0.3, 0.5, 0.9], {"a": [1, None, 2, 3], "b": [None, math.nan, 2, 3]})
    assert (found["a"].rho, found["a"].n) == (pytest.approx(1), 3)
    assert (found["b"].rho, found["b"].n) == (None, 2)


def test_monotonicity_names_the_metric_of_another_length():
    with pytest.raises(ValueError, match="kl"):
        monotonicity([0.1, 0.2], {"kl": [1.0]})


def test_exact_curve_is_exact_point_by_point():
    rewards = np.random.default_rng(4).normal(size=(3, 200, 2))
    curve = exact_curve(rewards, weights=[(0, 1), (0.5, 0.5)], beta=2.0, axes=("a", "b"))
    point = exact_point(rewards, weights=(0.5, 0.5), beta=2.0)
    row = curve.index_of((0.5, 0.5))
    assert curve.means_KM[row].tolist() == point.means_M.tolist()
    assert curve.kl_K[row] == point.kl
    assert curve.index_of((0.4, 0.6)) is None
    assert curve.index_of((0.4, 0.3, 0.3)) is None


def test_exact_curve_refuses_arrays_that_do_not_belong_together():
    with pytest.raises(ValueError, match="exact front"):
        ExactCurve(("a", "b"), np.zeros((3, 2)), np.zeros((2, 2)), np.zeros(3))
