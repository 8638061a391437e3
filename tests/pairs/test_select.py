"""Which pairs are chosen and how they are labelled, by hand; and what DPO makes of the labels, exactly."""

import itertools

import numpy as np
import pytest
import torch
from datasets import Dataset

from alignlab.pairs.select import ScoredAnswers, Selection, chance_of_first, labelled_pairs, spread_within
from alignlab.training.losses import PreferenceLoss
from support.enumerable import ODDS, PAIRS_EACH, RESPONSES, TableModel, logps_of, minimise

SCORES = np.array([[0.0, 3.0], [1.0, 2.0], [2.0, 2.0], [3.0, 1.0]])
"""Four answers whose objectives mostly disagree: 1 and 2 tie by the second."""


def settings(**changed):
    given = {"select": "extremes", "labels": "best", "temperature": 1.0, "min_margin": 0.0, "seed": 0}
    return Selection(**(given | changed))


def pairs_of(scores=SCORES, weights=(0.5, 0.5), **changed):
    ids = tuple(f"answer {index}" for index in range(len(scores)))
    found = labelled_pairs(
        ScoredAnswers("prompt", ids, np.asarray(scores, dtype=float)),
        settings(**changed),
        np.ones(np.shape(scores)[1]),
        np.array(weights),
    )
    return {one.pair: one.better for one in found}


def test_extremes_are_best_against_worst_of_each_objective_once():
    assert pairs_of() == {(0, 3): (1, 0)}, "both objectives choose the same two"
    scores = [[0, 1], [3, 0], [1, 2]]
    assert pairs_of(scores) == {(0, 1): (1, 0), (1, 2): (0, 1)}


def test_all_and_random():
    assert set(pairs_of(select="all")) == set(itertools.combinations(range(4), 2))
    drawn = pairs_of(select="random")
    assert sorted(index for pair in drawn for index in pair) == [0, 1, 2, 3], "each answer once"
    assert drawn == pairs_of(select="random")
    assert any(pairs_of(select="random", seed=seed).keys() != drawn.keys() for seed in range(1, 9)), "control"


def test_consistent_needs_all_objectives_and_pareto_dominance():
    scores = [[0, 0], [1, 1], [2, 1], [3, -1]]
    assert pairs_of(scores, select="consistent") == {(0, 1): (1, 1), (0, 2): (1, 1)}
    assert pairs_of(scores, select="pareto") == {(0, 1): (1, 1), (0, 2): (1, 1), (1, 2): (1, None)}


def test_an_unknown_score_of_what_weighs_nothing_does_not_matter():
    scores = [[0, 5], [1, np.nan], [2, 1]]
    assert set(pairs_of(scores, weights=(1, 0), select="weighted")) == {(0, 2)}
    assert set(pairs_of([[0, 5], [1, 1], [2, np.nan]], weights=(1, 0), select="weighted")) == {(0, 2)}
    unknown = set(pairs_of([[0, 5], [1, 1], [2, np.nan]], weights=(0.5, 0.5), select="weighted"))
    assert unknown == {(0, 1)}, "control: one that weighs leaves its answer out"


def test_weighted_is_best_against_worst_by_w_in_units_of_the_spread():
    assert set(pairs_of([[0, 5], [1, 0], [2, 1]], weights=(1, 0), select="weighted")) == {(0, 2)}
    assert set(pairs_of([[0, 5], [1, 0], [2, 1]], weights=(0, 1), select="weighted")) == {(0, 1)}


def test_equal_scores_are_no_pair():
    """TRL #1839: of two equal scores the lower index was taken as chosen."""
    assert pairs_of([[1.0, 2.0], [1.0, 2.0]], select="all") == {}
    assert pairs_of([[1.0, 2.0], [1.0, 3.0]], select="all") == {(0, 1): (None, 1)}
    assert pairs_of([[1.0, 2.0], [1.0, 2.0]], select="all", labels="bradley_terry") == {}


def test_a_least_margin():
    assert pairs_of([[0, 0], [0.4, 2]], select="all", min_margin=0.5) == {(0, 1): (None, 1)}
    assert pairs_of([[0, 0], [0.4, 0.1]], select="all", min_margin=0.5) == {}
    assert pairs_of([[0, 0], [0.4, 2]], select="consistent", min_margin=0.5) == {}


def test_an_answer_without_a_score_is_ranked_by_the_other_objective_alone():
    scores = [[np.nan, 1.0], [2.0, 0.0], [1.0, 3.0]]
    assert pairs_of(scores, select="all")[0, 1] == (None, 0)
    assert pairs_of(scores) == {(1, 2): (0, 1)}
    assert (0, 1) not in pairs_of(scores, select="pareto")


@pytest.mark.parametrize(("difference", "temperature"), [(1.0, 1.0), (1.0, 0.5), (-2.0, 4.0)])
def test_labels_are_drawn_with_the_scores_log_odds(difference, temperature):
    drawn = [
        pairs_of([[difference], [0.0]], (1.0,), labels="bradley_terry", temperature=temperature, seed=seed)[0, 1][0]
        for seed in range(2000)
    ]
    chance = 1 / (1 + np.exp(-difference / temperature))
    assert chance_of_first(difference, temperature) == pytest.approx(chance)
    assert 1 - np.mean(drawn) == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / 2000))


def test_chances_far_out_are_finite():
    assert chance_of_first(-1e9, 1.0) < 1e-300
    assert chance_of_first(1e9, 1.0) == 1


def test_spread_is_within_prompts():
    scores = np.array([[0.0, 7.0], [2.0, 7.0], [10.0, np.nan], [12.0, 9.0]])
    assert spread_within(scores, ["a", "a", "b", "b"]).tolist() == [1.0, 0.0]


BETA = 0.5


def kl_to_optimum(labels, folder):
    """KL(pi* || DPO's minimiser) over all pairs of an enumerable model's eight answers, nats."""
    scores = np.log(np.array(ODDS, dtype=float))[:, None]
    reference = logps_of(TableModel())
    rows = []
    for first, second in itertools.combinations(range(len(RESPONSES)), 2):
        chance = chance_of_first(float(scores[first, 0] - scores[second, 0]), 1.0)
        if labels == "best":
            better = pairs_of(scores[[first, second]], (1.0,), select="all").get((0, 1), (None,))[0]
            chance = {None: None, 0: 1.0, 1: 0.0}[better]
        for chosen, rejected, share in (
            (first, second, chance),
            (second, first, None if chance is None else 1 - chance),
        ):
            row = {
                "prompt_ids": RESPONSES[chosen].prompt_ids,
                "chosen_ids": RESPONSES[chosen].response_ids,
                "rejected_ids": RESPONSES[rejected].response_ids,
                "ref_chosen_logps": float(reference[chosen]),
                "ref_rejected_logps": float(reference[rejected]),
            }
            rows += [row] * (0 if share is None else round(PAIRS_EACH * share))
    loss = PreferenceLoss("sigmoid", beta=BETA)
    trained = logps_of(minimise(TableModel(), Dataset.from_list(rows), loss=loss, folder=folder)).double()
    optimum = torch.log_softmax(reference.double() + torch.tensor(scores[:, 0]) / BETA, 0)
    return float((optimum.exp() * (optimum - torch.log_softmax(trained, 0))).sum())


def test_dpo_on_bradley_terry_labels_has_the_regularised_optimum(tmp_path):
    assert kl_to_optimum("bradley_terry", tmp_path) < 1e-6


def test_dpo_on_best_labels_has_not(tmp_path):
    assert kl_to_optimum("best", tmp_path) > 0.1
