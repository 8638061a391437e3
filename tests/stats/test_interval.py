"""The record of an interval, as result.json holds it."""

import pytest

from alignlab.stats import Interval


@pytest.mark.parametrize(
    "interval", [Interval(1.0, 0.5, 1.5, 9, groups=4), Interval(1.0, None, None, 1, 3), Interval(None, None, None, 0)]
)
def test_interval_survives_its_record(interval):
    assert Interval.from_record(interval.as_record()) == interval


def test_record_keeps_to_the_contract():
    assert Interval(1.0, 0.5, 1.5, 9, groups=3).as_record() == {"mean": 1.0, "ci95": [0.5, 1.5], "n": 9, "groups": 3}


def test_a_record_without_groups_is_read():
    assert Interval.from_record({"mean": 1.0, "ci95": None, "n": 2}).groups is None


def test_half_an_interval_is_none():
    assert Interval.from_record({"mean": 1.0, "ci95": [None, 2.0], "n": 2}).bounds is None


@pytest.mark.parametrize(
    "record", [{"mean": 1.0, "ci95": [1], "n": 2}, {"mean": "1"}, 3, {"mean": 1.0, "groups": "two"}]
)
def test_another_shape_is_refused(record):
    with pytest.raises(ValueError, match="must be"):
        Interval.from_record(record)
