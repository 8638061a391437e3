"""The choice on half of the prompts: what it picks, how it splits, and whether its chances are kept."""

from pathlib import Path

import numpy as np
import pytest

from alignlab.front.choice import Candidate, between, choose, halves, nearest_miss, pick, rivals, verdict
from alignlab.front.prompts import Scores
from alignlab.front.which_w import Line

PROMPTS = [f"prompt {index}" for index in range(40)]
BETTER, SAFER = 0, 1


def a_candidate(means, noise=None, share_of=(None, None)):
    means_PM = np.tile(np.asarray(means, dtype=float), (len(PROMPTS), 1))
    return Candidate(str(means), {"better": 0.5}, means_PM + (0 if noise is None else noise), share_of, Path("adapter"))


def noisy(rng, num_policies, truth_CM):
    """Candidates of these true means whose prompts differ more than they do."""
    prompts = rng.normal(size=(1, len(PROMPTS), 2))
    own = 0.5 * rng.normal(size=(num_policies, len(PROMPTS), 2))
    return [a_candidate(truth, noise) for truth, noise in zip(truth_CM, prompts + own, strict=True)]


def test_the_split_halves_the_prompts_whatever_their_order():
    validation, test = halves(PROMPTS)
    assert sorted(validation + test) == list(range(40))
    assert len(validation) == len(test) == 20
    turned = halves(PROMPTS[::-1])
    assert {PROMPTS[index] for index in validation} == {PROMPTS[::-1][index] for index in turned[0]}
    assert [len(part) for part in halves(PROMPTS[:5])] == [3, 2]


def test_the_best_other_objective_among_those_that_meet_the_target():
    candidates = [a_candidate(means) for means in ((3.0, -1.0), (2.0, 0.1), (1.0, 2.0), (1.5, 0.5))]
    assert pick(candidates, range(40), {SAFER: 0.0}, min_chance=0.5) == 1
    assert pick(candidates, range(40), {SAFER: 0.0, BETTER: 1.2}, min_chance=0.5) in (1, 3)
    assert pick(candidates, range(40), {SAFER: 3.0}, min_chance=0.5) is None
    assert choose(candidates, PROMPTS, {SAFER: 3.0}) is None
    assert nearest_miss(candidates, range(40), {SAFER: 3.0}) == 2


def test_more_certainty_takes_a_safer_policy():
    rng = np.random.default_rng(0)
    candidates = noisy(rng, 4, [(4.0, 0.1), (3.0, 0.6), (2.0, 1.2), (1.0, 2.0)])
    chosen = [pick(candidates, range(40), {SAFER: 0.0}, min_chance=chance) for chance in (0.5, 0.9, 0.9999)]
    assert chosen == sorted(chosen)
    assert chosen[0] < chosen[-1]


def test_an_unknown_chance_is_not_one_that_is_high_enough():
    constant = a_candidate((3.0, 1.0))
    assert verdict(constant, range(40), {SAFER: 0.9}).chance is None
    assert pick([constant], range(40), {SAFER: 0.9}, min_chance=0.9) is None
    assert pick([constant], range(40), {SAFER: 0.9}, min_chance=0.5) == 0, "the means' word is enough"
    sure = noisy(np.random.default_rng(0), 1, [(0.0, 5.0)])[0]
    assert pick([constant, sure], range(40), {SAFER: 0.9}, min_chance=0.9) == 1


def test_a_share_is_not_certain_of_twenty_answers():
    found = verdict(a_candidate((0.0, 1.0), share_of=(None, 40)), range(20), {SAFER: 0.9})
    assert found.met
    assert 0.8 < found.chance < 0.98
    assert verdict(a_candidate((0.0, 1.0)), range(20), {SAFER: 0.9}).chance is None, "control: no spread, no chance"


def test_a_conditioned_adapter_is_a_policy_at_every_w_between():
    values = np.stack([np.tile(np.array(means), (1, 40, 1)) for means in ((0.0, 2.0), (4.0, -2.0))])
    line = Line(np.array([0.2, 0.8]), values.mean(axis=(1, 2)), Scores(values, (None, None), "40 prompts"))
    weights = [{"better": w, "safer": round(1 - w, 6)} for w in (0.2, 0.8)]
    candidates = between(line, weights, Path("conditioned"), "conditioned")
    found = choose(candidates, PROMPTS, {SAFER: 0.0})
    chosen = candidates[found.index]
    assert chosen.conditioned
    assert chosen.weights["better"] == pytest.approx(0.5, abs=0.006)
    assert sum(chosen.weights.values()) == pytest.approx(1)


def chances_and_outcomes(rng, *, num_policies, fronts=200, part="chance"):
    """Of each front's chosen policy, the chance that was said and whether its true mean meets the target."""
    said, kept = [], []
    w = np.linspace(0.1, 0.9, num_policies)
    while len(said) < fronts:
        span, bend = rng.uniform(0.5, 2), rng.uniform(0.3, 3)
        truth_CM = np.stack([span * w, span * (1 - w**bend)], axis=1)
        safest, least = truth_CM[:, SAFER].max(), truth_CM[:, SAFER].min()
        target = least + rng.uniform(-0.1, 1.1) * (safest - least)
        candidates = noisy(rng, num_policies, truth_CM)
        found = choose(candidates, PROMPTS, {SAFER: float(target)})
        if found is not None:
            said.append({"chance": found.chance, "validation": found.validation.chance}[part])
            kept.append(truth_CM[found.index, SAFER] >= target)
    return float(np.mean(said)), float(np.mean(kept))


@pytest.mark.parametrize("num_policies", [3, 9])
def test_it_meets_its_target_as_often_as_it_says(num_policies):
    said, kept = chances_and_outcomes(np.random.default_rng(num_policies), num_policies=num_policies)
    assert abs(said - kept) <= 0.05, (said, kept)


def test_rivals_are_those_that_differ_by_less_than_an_error():
    rng = np.random.default_rng(3)
    candidates = noisy(rng, 4, [(0.0, 0.0), (0.0, 0.01), (0.0, 3.0), (0.0, 0.02)])
    assert rivals(candidates, 2, range(40), [SAFER]) == 0
    same = [candidates[0]] * 3
    assert rivals([*same, candidates[2]], 0, range(40), [SAFER]) == 2


def test_the_half_that_it_was_chosen_on_would_say_too_much():
    """Control: the choice favours whom luck favoured there."""
    said, kept = chances_and_outcomes(np.random.default_rng(1), num_policies=9, part="validation")
    assert said - kept > 0.05
