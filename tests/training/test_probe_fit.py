"""Probes: scikit-learn's own fit, a ridge that fits the noise, and intervals that hold what they say."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from alignlab.errors import ConfigError
from alignlab.evaluation.probe import calibration, probe_quality
from alignlab.stats import pair_accuracy
from alignlab.training.probe import choose_ridge, fit_probe, out_of_fold


def drawn(num_pairs, num_features, strength, seed=0):
    """Differences of features, preferred minus other, with Bradley-Terry labels of random true weights."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=num_features) * strength / np.sqrt(num_features)
    differences = rng.normal(size=(num_pairs, num_features)) * np.linspace(0.5, 4, num_features)
    first = rng.random(num_pairs) < 1 / (1 + np.exp(-differences @ true))
    return np.where(first[:, None], differences, -differences), true


def penalised_gradient(differences, weights, ridge):
    scale = np.sqrt(np.square(differences).mean(axis=0))
    missing = 1 / (1 + np.exp(differences @ weights))
    return (-(differences * missing[:, None]).sum(axis=0)) / scale + ridge * weights * scale


@pytest.mark.parametrize(("num_pairs", "num_features"), [(80, 6), (30, 90)])
@pytest.mark.parametrize("ridge", [0.3, 50.0])
def test_it_is_scikit_learns_fit(num_pairs, num_features, ridge):
    """Another solver, on mirrored rows of all features, without the reduction to their row space."""
    differences, _ = drawn(num_pairs, num_features, 2.0)
    scale = np.sqrt(np.square(differences).mean(axis=0))
    rows = np.concatenate([differences, -differences]) / scale
    labels = np.repeat([1, 0], num_pairs)
    oracle = LogisticRegression(C=0.5 / ridge, fit_intercept=False, solver="newton-cholesky", tol=1e-12)
    weights = fit_probe(differences, ridge)
    np.testing.assert_allclose(weights, oracle.fit(rows, labels).coef_[0] / scale, atol=1e-6)
    assert np.abs(penalised_gradient(differences, weights, ridge)).max() < 1e-4
    assert np.abs(penalised_gradient(differences, 1.01 * weights, ridge)).max() > 1e-3, "control"


def test_a_feature_that_never_differs_weighs_nothing():
    differences, _ = drawn(50, 3, 2.0)
    weights = fit_probe(np.hstack([differences, np.zeros((50, 1))]), 1.0)
    assert weights[3] == 0
    np.testing.assert_allclose(weights[:3], fit_probe(differences, 1.0), atol=1e-7)


def test_the_ridge_fits_the_noise():
    groups = [f"prompt {index // 2}" for index in range(120)]
    noise = np.random.default_rng(0).normal(size=(120, 40))
    assert choose_ridge(noise, groups) >= 100
    told, _ = drawn(120, 5, 4.0)
    assert choose_ridge(told, groups) <= 10


def test_out_of_fold_margins_know_nothing_of_their_own_prompt():
    """Each prompt's pairs repeat a direction of their own: fitted to them it is learned, else it cannot be."""
    rng = np.random.default_rng(1)
    groups = [f"prompt {index // 4}" for index in range(200)]
    differences = np.repeat(rng.normal(size=(50, 100)), 4, axis=0)
    assert (differences @ fit_probe(differences, 1.0) > 0).mean() == 1
    assert 0.3 < (out_of_fold(differences, groups, 1.0) > 0).mean() < 0.7


def test_one_prompt_is_too_few():
    with pytest.raises(ConfigError, match="needs pairs of 2 prompts or more to be tested on, has 1"):
        choose_ridge(np.ones((4, 2)), ["one"] * 4)


def test_intervals_of_accuracy_cover_it():
    """Pairs of a prompt share half of their noise; the truth is the mean accuracy of the five folds' probes."""
    covered, narrow, runs = 0, 0, 100
    fresh, true = drawn(4000, 4, 2.0, seed=99)
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        shared = np.repeat(rng.normal(size=(30, 4)), 3, axis=0)
        differences = (shared + rng.normal(size=(90, 4))) / np.sqrt(2) * np.linspace(0.5, 4, 4)
        first = rng.random(90) < 1 / (1 + np.exp(-differences @ true))
        differences = np.where(first[:, None], differences, -differences)
        groups = [f"prompt {index // 3}" for index in range(90)]
        found = pair_accuracy(out_of_fold(differences, groups, 1.0), groups)
        truth = (fresh @ fit_probe(differences, 1.0) > 0).mean()
        covered += found.low <= truth <= found.high
        narrow += abs(found.mean - truth) <= found.half_width / 4
    assert covered / runs >= 0.92
    assert narrow / runs < 0.6, "control: a quarter of the width does not cover"


def test_quality_tells_length_from_content():
    rng = np.random.default_rng(3)
    lengths = rng.normal(size=400)
    groups = [f"prompt {index // 2}" for index in range(400)]
    signs = np.where(rng.random(400) < 1 / (1 + np.exp(-lengths)), 1, -1)
    by_length = probe_quality(signs * lengths, signs * lengths, groups)
    assert by_length["length_share"] == pytest.approx(1)
    assert by_length["scale"] == pytest.approx(1, abs=0.3), "margins are the labels' log-odds"
    told = probe_quality(signs * lengths, rng.normal(size=400) * 0.1, groups)
    assert abs(told["length_share"]) < 0.2
    assert told["accuracy"]["mean"] > 0.65 > 0.57 > told["length_accuracy"]["mean"]


def test_a_calibrated_probe_is_right_as_often_as_it_says():
    rng = np.random.default_rng(4)
    margins = rng.normal(size=6000) * 2
    margins *= np.where(rng.random(6000) < 1 / (1 + np.exp(-np.abs(margins))), 1, -1) * np.sign(margins)
    groups = [str(index) for index in range(6000)]
    bins = calibration(margins, groups)
    assert len(bins) == 5
    assert all(abs(one["confidence"] - one["accuracy"]["mean"]) < 0.06 for one in bins)
    boasting = calibration(5 * margins, groups)
    assert max(one["confidence"] - one["accuracy"]["mean"] for one in boasting) > 0.1, "control"
