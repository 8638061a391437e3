"""The numbers about a whole front, on boxes whose volumes are worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from alignlab.front.collect import FrontPoint
from alignlab.front.metrics import ExactCurve
from alignlab.front.summary import front_summary
from alignlab.stats import Interval

AXES = ("helpful", "safe", "brief")
WEIGHTS = [(0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.8), (0.3, 0.4, 0.3)]


def a_point(weights, values):
    metrics = {name: Interval(float(value), None, None, 9) for name, value in zip(AXES, values, strict=True)}
    named = dict(zip(("better", "safer", "brief"), weights, strict=True))
    return FrontPoint(Path(str(weights)), "modpo", weights, named, 0, AXES, metrics)


def exact(shift=0.0):
    weights = np.array(WEIGHTS)
    return ExactCurve(AXES, weights, weights + shift, np.zeros(len(WEIGHTS)))


def test_a_front_that_follows_its_weights():
    points = [a_point(weights, weights) for weights in WEIGHTS]
    found = front_summary(points, exact=exact(), reference=(0.0, 0.0, 0.0))
    assert found["points"] == found["non_dominated"] == 4
    assert [followed["axis"] for followed in found["follows_weight"].values()] == list(AXES)
    assert all(followed["rho"] == pytest.approx(1) for followed in found["follows_weight"].values())
    assert found["to_exact"] == {"epsilon": pytest.approx(0), "igd_plus": pytest.approx(0)}
    volume = found["hypervolume"]["reference"]
    assert volume["corner"] == [0, 0, 0]
    assert volume["points"] == pytest.approx(volume["exact"])


def test_one_that_runs_against_them():
    points = [a_point(weights, [-value for value in weights]) for weights in WEIGHTS]
    found = front_summary(points, exact=None, reference=None)
    assert all(followed["rho"] == pytest.approx(-1) for followed in found["follows_weight"].values())
    assert found["hypervolume"] == {}
    assert "to_exact" not in found


def test_the_volume_is_that_of_the_boxes():
    points = [a_point((1.0, 0.0, 0.0), (2, 1, 1)), a_point((0.0, 1.0, 0.0), (1, 3, 1))]
    found = front_summary(points, exact=None, reference=(0.0, 0.0, 0.0))
    assert found["hypervolume"]["reference"]["points"] == pytest.approx(2 + 3 - 1)
    assert found["follows_weight"]["better"]["rho"] is None, "two points have no rank correlation"


def test_a_shortfall_is_measured_at_the_same_weights():
    points = [a_point(weights, weights) for weights in WEIGHTS]
    assert front_summary(points, exact=exact(0.25), reference=None)["to_exact"]["epsilon"] == pytest.approx(0.25)
    other = [*points, a_point((0.5, 0.5, 0.0), (1, 1, 1))]
    assert "to_exact" not in front_summary(other, exact=exact(), reference=None), "one weighting has no exact point"
