"""What could be had without training: against a distribution that is known whole, by simulation, and from the job."""

import json
import random
from itertools import product

import numpy as np
import pytest

from alignlab.data.worlds import toy
from alignlab.front.collect import collect
from alignlab.front.exact import exact_point
from alignlab.front.preview import best_of_n, preview_point
from alignlab.front.previewed import find_preview
from support.fronts import write_front

VALUES_AM = np.array([[0.0, 1.0], [1.0, 0.2], [0.4, 0.6], [1.5, -1.0]])
"""Rewards of the four answers that the reference gives to any prompt, equally often up to the prompt's tilt."""
WEIGHTS, BETA = (0.7, 0.3), 0.8


def reference_odds(rng, num_prompts):
    return rng.dirichlet(np.full(4, 5.0), size=num_prompts)


def optimum(odds_A):
    tilted_A = odds_A * np.exp(VALUES_AM @ np.array(WEIGHTS) / BETA)
    return tilted_A / tilted_A.sum() @ VALUES_AM


def samples(rng, odds_PA, num_samples):
    return np.array([VALUES_AM[rng.choice(4, size=num_samples, p=odds_A)] for odds_A in odds_PA])


@pytest.mark.parametrize("sharpness", [1, 30])
def test_it_is_the_jackknifed_exact_front_averaged_over_prompts(sharpness):
    """Every sample left out in turn, by `exact_point` on the rest; also where one carries nearly all the weight."""
    rng = np.random.default_rng(0)
    rewards_PSM = samples(rng, reference_odds(np.random.default_rng(1), 3), 60) + 0.01 * rng.normal(size=(3, 60, 2))
    rewards_PSM *= sharpness
    found = preview_point(rewards_PSM, weights=WEIGHTS, beta=BETA, min_ess=0)
    whole = exact_point(rewards_PSM, weights=WEIGHTS, beta=BETA, min_ess=0)
    rest = [
        exact_point(np.delete(rewards_PSM, index, axis=1), weights=WEIGHTS, beta=BETA, min_ess=0) for index in range(60)
    ]
    means_M = 60 * whole.means_M - 59 * np.mean([one.means_M for one in rest], axis=0)
    assert [one.mean for one in found.means] == pytest.approx(means_M.tolist(), abs=1e-9)
    assert found.kl.mean == pytest.approx(60 * whole.kl - 59 * np.mean([one.kl for one in rest]), abs=1e-9)
    assert found.ess == pytest.approx(whole.ess_P.min())


def test_too_few_effective_samples_are_no_point():
    rng = np.random.default_rng(0)
    rewards_PSM = samples(rng, reference_odds(rng, 6), 400)
    sharp = preview_point(rewards_PSM * 100, weights=WEIGHTS, beta=BETA, min_ess=200)
    assert sharp.means is None
    assert sharp.kl is None
    assert sharp.ess < 200


def test_the_true_optimum_lies_in_its_interval_in_95_of_100_simulations():
    rng, hits, trials = np.random.default_rng(1), np.zeros(2), 400
    truth = np.mean([optimum(odds_A) for odds_A in reference_odds(np.random.default_rng(9), 20_000)], axis=0)
    for _ in range(trials):
        rewards_PSM = samples(rng, reference_odds(rng, 20), 120)
        found = preview_point(rewards_PSM, weights=WEIGHTS, beta=BETA, min_ess=50)
        hits += [one.low <= value <= one.high for one, value in zip(found.means, truth, strict=True)]
    assert ((hits / trials > 0.92) & (hits / trials < 0.98)).all(), hits / trials


def toy_pool():
    """Gold rewards of 150 demonstrations to each of 60 toy requests: what the toy's reference learns to say."""
    rng = random.Random(0)
    asked = toy.all_prompts()[::4]
    said = [[toy.demonstration(prompt, rng) for _ in range(150)] for prompt in asked]
    pairs = zip(asked, said, strict=True)
    return np.array(
        [[[toy.helpful(prompt, text), toy.safe(prompt, text)] for text in texts] for prompt, texts in pairs]
    )


@pytest.mark.slow
def test_on_the_toy_the_true_optimum_is_covered_at_every_w_that_is_known():
    """Requests and responses are drawn anew; the optimum of the pool that they are drawn from is known exactly."""
    pool_PSM, rng, trials = toy_pool(), np.random.default_rng(3), 200
    covered, plain = {}, 0
    for first in (0.1, 0.3, 0.5, 0.7, 0.9):
        weights = (first, 1 - first)
        truth = exact_point(pool_PSM, weights=weights, beta=1.0, min_ess=0)
        hits = np.zeros(3)
        for _ in range(trials):
            asked = rng.integers(len(pool_PSM), size=100)
            rewards_PSM = pool_PSM[asked[:, None], rng.integers(pool_PSM.shape[1], size=(100, 192))]
            found = preview_point(rewards_PSM, weights=weights, beta=1.0, min_ess=20)
            true = (*truth.means_M, truth.kl)
            hits += [one.low <= value <= one.high for one, value in zip((*found.means, found.kl), true, strict=True)]
            own = exact_point(rewards_PSM, weights=weights, beta=1.0, min_ess=0).kl
            plain += abs(own - truth.kl) <= found.kl.half_width
        covered[first] = (hits / trials).round(3).tolist()
    shares = np.array(list(covered.values()))
    assert ((shares >= 0.92) & (shares <= 0.98)).all(), covered
    assert 0.935 <= shares.mean() <= 0.965, covered
    assert plain / trials / 5 < 0.93, "control: without the jackknife the KL is missed"


def test_best_of_n_is_the_mean_over_all_choices():
    rng = np.random.default_rng(2)
    rewards_SM = rng.normal(size=(6, 2))
    best = [max(chosen, key=lambda row: row @ np.array(WEIGHTS)) for chosen in product(rewards_SM, repeat=1)]
    assert [one.mean for one in best_of_n(rewards_SM[None], weights=WEIGHTS, n=1).means] == pytest.approx(
        np.mean(best, axis=0).tolist()
    )
    pairs = [(first, second) for first, second in product(range(6), repeat=2) if first < second]
    better = [max(rewards_SM[list(pair)], key=lambda row: row @ np.array(WEIGHTS)) for pair in pairs]
    found = best_of_n(rewards_SM[None], weights=WEIGHTS, n=2)
    assert [one.mean for one in found.means] == pytest.approx(np.mean(better, axis=0).tolist())


def test_best_of_n_has_the_known_kl_without_ties_and_none_where_all_are_tied():
    rng = np.random.default_rng(3)
    free = best_of_n(rng.normal(size=(1, 4000, 2)), weights=WEIGHTS, n=4)
    assert free.kl.mean == pytest.approx(np.log(4) - 3 / 4, abs=2e-3)
    tied = best_of_n(np.ones((1, 100, 2)), weights=WEIGHTS, n=4)
    assert tied.kl.mean == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="n=5: must be"):
        best_of_n(np.ones((1, 4, 2)), weights=WEIGHTS, n=5)


def test_a_preview_of_the_same_inputs_is_found(tmp_path, capsys):
    inputs = {"model": "m", "scorers": "{}", "prompts": "p"}
    sampled = {name: json.dumps({"temperature": 1.0, "samples": count}) for name, count in (("few", 4), ("many", 64))}
    runs = write_front(tmp_path / "runs", inputs={**inputs, "decoding": sampled["few"]})
    points = [
        {"point": what, "weights": {"better": w, "safer": 1 - w}, "kl": kl}
        | {"scores": {"better": {"mean": 2 * w}, "safer": {"mean": -w}}}
        for what, w, kl in (
            ("optimum", 0.0, {"mean": 0.5}), ("optimum", 1.0, {"mean": 0.7}), ("optimum", 0.5, None),
            ("best of 4", 1.0, {"mean": 9.0}),
        )
    ]  # fmt: skip

    def previewed(name, beta=1.0, **changed):
        folder = tmp_path / name / "seed=0"
        folder.mkdir(parents=True)
        (folder / "preview.json").write_text(json.dumps({"beta": beta, "points": points}))
        record = {"status": "done", "algorithm": "preview"}
        record["inputs"] = {**inputs, "decoding": sampled["many"], **changed}
        (folder / "result.json").write_text(json.dumps(record))
        return find_preview(tmp_path / name, collect(runs))

    curve = previewed("same")
    assert curve.axes == ("helpful", "safe")
    assert curve.weights_KM.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert curve.means_KM.tolist() == [[0.0, 0.0], [2.0, -1.0]]
    assert curve.kl_K.tolist() == [0.5, 0.7]
    assert previewed("another beta", beta=2.0) is None
    assert previewed("another scorer", scorers='{"a": 1}') is None
    assert previewed("another temperature", decoding=json.dumps({"temperature": 0.7, "samples": 64})) is None
    assert find_preview(tmp_path / "none", collect(runs)) is None
    shared = {"inputs": {**inputs, "decoding": sampled["few"]}, "recipe": {"normalised": True}}
    normalised = collect(write_front(tmp_path / "normalised", **shared))
    assert find_preview(tmp_path / "same", normalised) is None, "its w weighs other units"
    assert "no line of algorithm=preview" in capsys.readouterr().out
