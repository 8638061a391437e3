"""Which pairs of a synthesised set are trained on."""

import pytest

from alignlab.config.names import PAIR_STRATEGIES
from alignlab.data.rankings import BENIGN, HARMFUL, rankings


def pairs(strategy, num=6, kind=HARMFUL):
    return {pair for part in rankings(strategy, num, kind=kind) for pair in part.pairs()}


def test_all_pairs_of_six_are_fifteen_and_the_better_one_comes_first():
    found = [pair for part in rankings("all", 6) for pair in part.pairs()]
    assert len(found) == len(set(found)) == 15
    assert all(better < worse for better, worse in found)


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        ("adjacent", {(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)}),
        ("best_worst", {(0, 5)}),
        ("principle_1", {(1, 5), (2, 5), (3, 5), (4, 5)}),
        ("principle_2", {(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)}),
    ],
)
def test_each_strategy_takes_its_pairs(strategy, wanted):
    assert pairs(strategy) == wanted
    assert wanted < pairs("all")


@pytest.mark.parametrize("strategy", PAIR_STRATEGIES)
def test_in_a_harmless_set_only_the_helpful_response_is_chosen(strategy):
    assert {better for better, _ in pairs(strategy, kind=BENIGN)} <= {0}


def test_a_harmless_sets_pairs():
    assert pairs("all", kind=BENIGN) == {(0, index) for index in range(1, 6)}
    assert pairs("principle_1", kind=BENIGN) == {(0, index) for index in range(1, 5)}
    assert pairs("principle_2", kind=BENIGN) == set()


def test_one_correction_has_no_earlier_or_later_one():
    assert rankings("principle_2", 3) == []
    assert pairs("all", 3) == {(0, 1), (0, 2), (1, 2)}
