"""Best-of-n from more than n samples: how often each is chosen, against all choices listed, and the KL's bias."""

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest

from alignlab.errors import ConfigError
from alignlab.evaluation.weighted import PromptSamples, WeightedPrompt, difference_std
from alignlab.front.preview import chosen_of_n
from alignlab.jobs import best_of_n
from alignlab.rewards.normalise import statistics_of


def listed(scores, n):
    """Probability of each sample over all choices of n; the best ones of a choice share it."""
    found = np.zeros(len(scores))
    for choice in combinations(range(len(scores)), n):
        best = [index for index in choice if scores[index] == max(scores[list(choice)])]
        found[best] += 1 / len(best)
    return found / found.sum()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("tied", [False, True])
def test_each_sample_is_chosen_as_often_as_in_all_choices_listed(n, tied):
    scores = np.random.default_rng(0).normal(size=6)
    scores = np.round(scores) if tied else scores
    assert chosen_of_n(scores, n).probability_S == pytest.approx(listed(scores, n), abs=1e-12)


def test_the_kl_is_low_by_what_is_said():
    def low_by(samples, n):
        exact = np.log(n) - (n - 1) / n  # without ties
        return 1 - chosen_of_n(np.arange(samples, dtype=float), n).kl / exact

    assert 0.3 < low_by(2, 2) < 0.33
    assert 0 < low_by(8, 2) < 0.03
    assert all(0 < low_by(n, n) < 0.08 for n in (4, 8, 16, 64))
    assert all(0 < low_by(4 * n, n) < 0.01 for n in (4, 8, 16, 64))


def test_the_kl_is_known_for_many_samples():
    found = chosen_of_n(np.arange(256.0), 256)
    assert found.kl == pytest.approx(np.log(256) - 255 / 256, rel=0.08), "low by at most 8% at S = n, of any size"
    assert chosen_of_n(np.arange(6.0), 1).kl == pytest.approx(0, abs=1e-12), "the best of one is the reference"


def test_without_a_prompt_of_n_scored_samples_it_is_refused(monkeypatch, tmp_path):
    samples = PromptSamples("a", [{"id": "0"}, {"id": "1"}], [{"r": 1.0}, {"r": None}])
    monkeypatch.setattr(best_of_n, "reference_prompts", lambda *_, **__: ([samples], {}))
    algorithm = SimpleNamespace(n=2, samples=2, normalise=False, beta=1.0)
    plan = SimpleNamespace(algorithm=algorithm, objectives=SimpleNamespace(weights={"better": 1.0}))
    outcome = SimpleNamespace(axes={"better": "r"}, extra={})
    with pytest.raises(ConfigError, match=r"algorithm.n=2: no prompt has .* \(1 samples lack one\)"):
        best_of_n.run(plan, SimpleNamespace(path=tmp_path), outcome)


def test_all_choices_have_less_variance_than_picks_and_the_same_mean():
    rng = np.random.default_rng(0)
    whole, picked = [], []
    for _ in range(2000):
        scores, values = rng.normal(size=12), rng.normal(size=12)
        values = values + scores
        whole.append(chosen_of_n(scores, 4).probability_S @ values)
        picked.append(values.reshape(-1, 4)[np.arange(3), scores.reshape(-1, 4).argmax(1)].mean())
    error = np.sqrt((np.var(whole) + np.var(picked)) / 2000)
    assert abs(np.mean(whole) - np.mean(picked)) < 4 * error
    assert np.var(whole) < 0.9 * np.var(picked)


def test_a_mean_is_unknown_only_where_a_sample_that_counts_is():
    rows = [{"id": str(index)} for index in range(3)]
    samples = PromptSamples("a", rows, [{"r": 1.0}, {"r": None}, {}])
    assert WeightedPrompt(samples, np.array([1.0, 0.0, 0.0]), 0.0).mean(samples.column("r")) == 1.0
    assert WeightedPrompt(samples, np.array([0.5, 0.5, 0.0]), 0.0).mean(samples.column("r")) is None


def test_rewards_are_divided_by_what_other_algorithms_divide_them_by(encoded_rows):
    """rewards/normalise.py's statistic, on samples in place of training rows."""

    class Scores:
        id = "scores"

        def score_encoded(self, rows):
            import torch

            return torch.tensor([float(len(row.response_ids) ** 2) for row in rows])

    by_prompt = {}
    for row in encoded_rows:
        by_prompt.setdefault(tuple(row.prompt_ids[:4]), []).append(len(row.response_ids) ** 2)
    grouped = [type(row)(row.prompt_ids[:4], row.response_ids) for row in encoded_rows]
    expected = statistics_of("key", Scores(), grouped).difference_std
    found = difference_std([np.array(values, dtype=float)[:, None] for values in by_prompt.values()])
    assert found == pytest.approx([expected], rel=1e-6)
