"""From w to one weight per objective."""

import math

import pytest

from alignlab.config.objectives import objectives_of
from alignlab.config.weights import resolve_weights
from alignlab.errors import ConfigError

TWO, THREE = ("better", "safer"), ("better", "safer", "brief")


def weigh(w, objectives=TWO, trained="better", scheme="convex"):
    return resolve_weights(w, objectives=objectives, trained=trained, scheme=scheme)


def test_a_number_is_the_trained_objectives_weight():
    assert weigh(0.25) == {"better": 0.25, "safer": 0.75}
    assert weigh(0.25, trained="safer") == {"better": 0.75, "safer": 0.25}


@pytest.mark.parametrize("w", [0, 1, 0.0, 1.0])
def test_the_ends_of_the_front(w):
    assert weigh(w) == {"better": float(w), "safer": 1 - float(w)}


def test_number_list_and_mapping_say_the_same():
    assert weigh(0.25) == weigh([0.25, 0.75]) == weigh({"safer": 0.75, "better": 0.25})


def test_a_list_starts_with_the_trained_objective():
    assert weigh([0.5, 0.3, 0.2], THREE, trained="brief") == {"better": 0.3, "safer": 0.2, "brief": 0.5}


def test_the_order_is_the_datasets():
    assert list(weigh({"brief": 0.2, "safer": 0.3, "better": 0.5}, THREE)) == list(THREE)


def test_thirds_may_be_rounded():
    assert sum(weigh([0.3333333, 0.3333333, 0.3333334], THREE).values()) == pytest.approx(1, abs=1e-6)


def test_penalty_leaves_the_trained_objective_at_one():
    assert weigh(3, scheme="penalty") == {"better": 1.0, "safer": 3.0}
    assert weigh([2, 5], scheme="penalty") == {"better": 2.0, "safer": 5.0}


def test_a_vector_is_taken_as_it_is():
    assert weigh([2, 0, 0.5], THREE, scheme="vector") == {"better": 2.0, "safer": 0.0, "brief": 0.5}
    assert weigh({"safer": 3, "better": 0.1}, scheme="vector") == {"better": 0.1, "safer": 3.0}


def test_a_vector_is_no_number():
    with pytest.raises(
        ConfigError, match=r"^w=0.5: weights=vector takes one weight for each objective, e.g. w=\[1.0,0.5,0.1\]"
    ):
        weigh(0.5, THREE, scheme="vector")
    with pytest.raises(ConfigError, match="the weight of safer is -1, must be >= 0"):
        weigh([1, -1], scheme="vector")


def test_every_preset_is_a_scheme(run_of):
    """The same w by each preset, through the composed configuration."""
    given = {"convex": "w=[0.25,0.75]", "penalty": "w=3", "vector": "'w={safer:2,better:0.5}'"}
    wanted = {"convex": (0.25, 0.75), "penalty": (1.0, 3.0), "vector": (0.5, 2.0)}
    for scheme, w in given.items():
        config = run_of(f"weights={scheme}", w.strip("'"))
        assert tuple(objectives_of(config).weights.values()) == wanted[scheme]


@pytest.mark.parametrize(
    ("w", "objectives", "rule"),
    [
        (1.5, TWO, "w=1.5: must be between 0 and 1"),
        (-0.1, TWO, "w=-0.1: must be between 0 and 1"),
        ("abc", TWO, "w=abc: must be a finite number"),
        (None, TWO, "w=null: must be a finite number"),
        (True, TWO, "w=true: must be a finite number"),
        (math.nan, TWO, "w=nan: must be a finite number"),
        (math.inf, TWO, "w=inf: must be a finite number"),
        ([0.5, 0.6], TWO, "w=[0.5,0.6]: weights sum to 1.1, must sum to 1"),
        ([0.5, 0.3, 0.2], TWO, "w=[0.5,0.3,0.2]: 3 weights for 2 objectives (better, safer)"),
        ([], TWO, "w=[]: 0 weights"),
        ([1.5, -0.5], TWO, "the weight of safer is -0.5, must be >= 0"),
        ([0.5, "x"], TWO, "w of safer=x: must be a finite number"),
        ({"better": 0.5, "nice": 0.5}, TWO, "w.nice: no such objective; choose one of better, safer"),
        ({"better": 1}, TWO, "w={better:1}: no weight for safer"),
        (0.5, THREE, "one number serves two objectives, here are 3"),
    ],
)
def test_refused_with_the_rule(w, objectives, rule):
    with pytest.raises(ConfigError) as refused:
        weigh(w, objectives)
    assert rule in str(refused.value)
    assert "\n" not in str(refused.value)
