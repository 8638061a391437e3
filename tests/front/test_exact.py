"""The exact optimum, held against closed forms and identities."""

import math

import numpy as np
import pytest

from alignlab.front.exact import attained_share, exact_point, kl_to_optimum

REWARDS = np.random.default_rng(0).normal(size=(5, 400, 2)) * [1.0, 1.5] + [0.3, -0.2]
"""Five prompts, 400 samples of the reference, two objectives."""


def closed_form(
    probs: np.ndarray, rewards_KM: np.ndarray, weights: np.ndarray, beta: float
) -> tuple[np.ndarray, float, float]:
    """Means, KL and objective of the optimum over an enumerated set of responses, straight from the definition."""
    unnormalised = probs * np.exp(rewards_KM @ weights / beta)
    optimum = unnormalised / unnormalised.sum()
    kl = float((optimum * np.log(optimum / probs)).sum())
    means = optimum @ rewards_KM
    return means, kl, float(means @ weights - beta * kl)


@pytest.mark.parametrize("beta", [0.7, 1.0, 3.0])
def test_enumerable_responses_give_the_closed_form(beta: float):
    counts = np.array([100, 200, 300, 400])  # each response as often as the reference says: no sampling error
    rewards_KM = np.array([[1.0, -1.0], [0.0, 0.5], [-0.5, 1.0], [0.2, 0.2]])
    weights = np.array([0.3, 0.7])
    got = exact_point(np.repeat(rewards_KM, counts, axis=0)[None], weights=weights, beta=beta)
    means, kl, objective = closed_form(counts / counts.sum(), rewards_KM, weights, beta)
    assert got.means_M == pytest.approx(means)
    assert got.kl == pytest.approx(kl)
    assert got.J_star == pytest.approx(objective)


def test_a_two_response_world_by_hand():
    """Reference 1/2, 1/2; rewards 0 and log 3; beta 1: Z = (1 + 3) / 2 = 2, and the optimum is 1/4, 3/4."""
    rewards = np.repeat([0.0, math.log(3)], 100)[None, :, None]
    got = exact_point(rewards, weights=[1.0], beta=1.0)
    assert got.J_star == pytest.approx(math.log(2))
    assert got.means_M[0] == pytest.approx(0.75 * math.log(3))
    assert got.kl == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert got.ess_P[0] == pytest.approx(200 * 0.8)  # (1+3)^2 / (1^2+3^2) / 2 = 0.8 of the samples


def test_normal_rewards_give_the_lognormal_mean():
    """R ~ N(0, 1): log Z = 1 / (2 beta^2), so J* = 1 / (2 beta); a sampled check, hence the tolerance."""
    rewards = np.random.default_rng(1).normal(size=(20, 20_000, 1))
    assert exact_point(rewards, weights=[1.0], beta=1.0).J_star == pytest.approx(0.5, abs=0.02)


def test_zero_weights_are_the_reference():
    got = exact_point(REWARDS, weights=[0.0, 0.0], beta=1.0)
    assert got.kl == pytest.approx(0.0, abs=1e-12)
    assert got.J_star == pytest.approx(got.J_ref) == pytest.approx(0.0)
    assert got.means_M == pytest.approx(REWARDS.mean(axis=(0, 1)))
    assert got.means_M == pytest.approx(got.ref_means_M)
    assert got.ess_P == pytest.approx(np.full(5, 400.0))


def test_the_objective_is_weighted_reward_minus_beta_kl():
    got = exact_point(REWARDS, weights=[0.4, 0.6], beta=1.3)
    assert got.J_star == pytest.approx(got.means_M @ [0.4, 0.6] - 1.3 * got.kl)
    assert got.J_ref == pytest.approx(REWARDS.mean(axis=(0, 1)) @ [0.4, 0.6])
    assert got.J_star > got.J_ref
    assert got.kl > 0


def test_a_constant_added_to_a_reward_shifts_the_objective_alone():
    before = exact_point(REWARDS, weights=[0.4, 0.6], beta=1.0)
    after = exact_point(REWARDS + np.array([0.0, 100.0]), weights=[0.4, 0.6], beta=1.0)
    assert after.J_star - before.J_star == pytest.approx(60.0)
    assert after.J_ref - before.J_ref == pytest.approx(60.0)
    assert after.kl == pytest.approx(before.kl)
    assert after.ess_P == pytest.approx(before.ess_P)


def test_only_reward_over_beta_counts():
    a = exact_point(REWARDS, weights=[0.5, 0.5], beta=1.0)
    b = exact_point(REWARDS * 7, weights=[0.5, 0.5], beta=7.0)
    assert (b.J_star, b.kl) == (pytest.approx(7 * a.J_star), pytest.approx(a.kl))


def test_no_other_tilt_does_better():
    """Negative control: the optimum for another weighting scores lower by this one, by exactly beta times their KL."""
    weights, beta = np.array([0.5, 0.5]), 1.0
    best = exact_point(REWARDS, weights=weights, beta=beta)
    other = exact_point(REWARDS, weights=[0.9, 0.1], beta=beta)
    objective = float(other.means_M @ weights - beta * other.kl)
    tilt_a, tilt_b = REWARDS @ [0.9, 0.1], REWARDS @ weights
    log_a, log_b = (t - np.log(np.exp(t).sum(axis=1, keepdims=True)) for t in (tilt_a, tilt_b))
    kl = float((np.exp(log_a) * (log_a - log_b)).sum(axis=1).mean())
    assert kl > 0.01
    assert kl_to_optimum(objective, J_star=best.J_star, beta=beta) == pytest.approx(kl)


def test_huge_rewards_do_not_overflow():
    rewards = np.full((2, 100, 1), 1e6)
    assert exact_point(rewards, weights=[1.0], beta=0.1).J_star == pytest.approx(1e6)


def test_few_effective_samples_are_refused_by_prompt():
    rewards = REWARDS.copy()
    rewards[3, 0, 0] = 50.0  # one sample takes all the weight
    with pytest.raises(ValueError, match=r"prompt 3: effective sample size 1\.0 of 400 must be at least 50"):
        exact_point(rewards, weights=[1.0, 0.0], beta=1.0)
    assert exact_point(rewards, weights=[1.0, 0.0], beta=1.0, min_ess=1).ess_P[3] == pytest.approx(1.0)
    assert exact_point(rewards, weights=[0.0, 1.0], beta=1.0).ess_P.min() > 50


@pytest.mark.parametrize(
    ("rewards", "weights", "beta", "message"),
    [
        (REWARDS[0], [0.5, 0.5], 1.0, "rewards of shape"),
        (REWARDS[:, :0], [0.5, 0.5], 1.0, "rewards of shape"),
        (REWARDS, [0.5, 0.3, 0.2], 1.0, "weights of shape"),
        (REWARDS, [0.5, float("nan")], 1.0, "weights="),
        (np.where(np.arange(5)[:, None, None] == 2, np.nan, REWARDS), [0.5, 0.5], 1.0, "prompt 2"),
        (REWARDS, [0.5, 0.5], 0.0, "beta=0.0"),
        (REWARDS, [0.5, 0.5], float("nan"), "beta=nan"),
    ],
)
def test_bad_input_is_refused(rewards: np.ndarray, weights: list[float], beta: float, message: str):
    with pytest.raises(ValueError, match=message):
        exact_point(rewards, weights=weights, beta=beta)


def test_attained_share_by_hand():
    assert attained_share(1.0, J_ref=1.0, J_star=3.0) == 0.0
    assert attained_share(3.0, J_ref=1.0, J_star=3.0) == 1.0
    assert attained_share(2.5, J_ref=1.0, J_star=3.0) == 0.75
    assert attained_share(0.0, J_ref=1.0, J_star=3.0) == -0.5


def test_nothing_to_gain_is_unknown_and_not_zero():
    constant = exact_point(np.full((2, 60, 1), 4.2), weights=[1.0], beta=1.0)
    assert attained_share(constant.J_ref, J_ref=constant.J_ref, J_star=constant.J_star) is None


def test_kl_to_optimum_by_hand_and_its_guard():
    assert kl_to_optimum(1.0, J_star=1.5, beta=0.5) == 1.0
    with pytest.raises(ValueError, match="beta=0"):
        kl_to_optimum(1.0, J_star=1.5, beta=0)
