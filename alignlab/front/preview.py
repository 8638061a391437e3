"""What could be had without training: the KL-regularised optimum and best-of-n, estimated from the reference's samples.

Shape letters: P prompts, S samples of the reference a prompt, M objectives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln  # type: ignore[import-untyped]

from alignlab.front.exact import Floats, exact_point
from alignlab.stats import Interval, mean_interval

MOST_OF_SAMPLES = 4
"""Best-of-n is estimated up to a quarter of the samples: beyond it too few of them are the best of any n."""


@dataclass(frozen=True)
class PreviewPoint:
    """The estimated optimum at one weighting; unknown where too few samples carry its weight."""

    weights: tuple[float, ...]
    ess: float
    """Effective samples of the prompt that has fewest."""
    means: tuple[Interval, ...] | None
    """Mean reward of each objective, in its own unit."""
    kl: Interval | None
    """KL to the reference, nats."""


def preview_point(rewards_PSM: Floats, *, weights: Sequence[float], beta: float, min_ess: float) -> PreviewPoint:
    """The optimum pi_ref * exp(w.r / beta) by importance weights, with intervals over prompts.

    Each prompt's estimate is low or high by about 1/ESS of the gain, alike on all prompts, so that with many of them
    the interval would miss the truth; the jackknife over its samples takes that out.

    Args:
        rewards_PSM: rewards of the reference's samples, (P, S, M).
        weights: one an objective.
        beta: KL strength, reward units a nat.
        min_ess: least effective samples of every prompt for which the point counts as known.

    Raises:
        ValueError: for a wrong shape, a reward that is not finite, or beta <= 0.
    """
    ess = float(exact_point(rewards_PSM, weights=weights, beta=beta, min_ess=0).ess_P.min())
    if ess < min_ess:
        return PreviewPoint(tuple(weights), ess, None, None)
    means_PM, kl_P = _jackknifed(rewards_PSM, np.asarray(weights, dtype=np.float64), beta)
    means = tuple(mean_interval(column_P) for column_P in means_PM.T.tolist())
    return PreviewPoint(tuple(weights), ess, means, mean_interval(kl_P.tolist()))


def _jackknifed(rewards_PSM: Floats, weights_M: Floats, beta: float) -> tuple[Floats, Floats]:
    """Means (P, M) and KL (P,) of the optimum on each prompt, S times the estimate minus S - 1 times those without one.

    Source: Quenouille 1956, Biometrika 43, for the bias of order 1/S.
    """
    num_samples = rewards_PSM.shape[1]
    tilts_PS = rewards_PSM @ weights_M / beta
    values_PSK = np.concatenate([rewards_PSM, tilts_PS[..., None]], axis=2)
    whole_PK, log_z_P = _tilted_means(tilts_PS, values_PSK)
    if num_samples < 2:
        return whole_PK[:, :-1], whole_PK[:, -1] - log_z_P
    peak_P = tilts_PS.argmax(axis=1)
    light_PS = np.arange(num_samples) != peak_P[:, None]
    # The heaviest sample may carry nearly all the weight, so without it all is summed afresh.
    shape = (len(tilts_PS), num_samples - 1)
    sum_PK, sum_log_z_P = _tilted_means(tilts_PS[light_PS].reshape(shape), values_PSK[light_PS].reshape(*shape, -1))
    # Any other carries half of it at most, and can be taken off the sums.
    odds_PS = np.exp(tilts_PS - tilts_PS.max(axis=1, keepdims=True))
    rest_PS = np.where(light_PS, odds_PS.sum(axis=1, keepdims=True) - odds_PS, 1.0)
    total_P1K = (odds_PS[..., None] * values_PSK).sum(axis=1, keepdims=True)
    without_PSK = (total_P1K - odds_PS[..., None] * values_PSK) / rest_PS[..., None]
    sum_PK += np.where(light_PS[..., None], without_PSK, 0.0).sum(axis=1)
    log_z_PS = tilts_PS.max(axis=1, keepdims=True) + np.log(rest_PS / (num_samples - 1))
    sum_log_z_P += np.where(light_PS, log_z_PS, 0.0).sum(axis=1)
    share = (num_samples - 1) / num_samples
    found_PK, found_log_z_P = num_samples * whole_PK - share * sum_PK, num_samples * log_z_P - share * sum_log_z_P
    return found_PK[:, :-1], found_PK[:, -1] - found_log_z_P


def _tilted_means(tilts_PS: Floats, values_PSK: Floats) -> tuple[Floats, Floats]:
    """Means (P, K) of values under the tilt, and log of the mean of exp(tilt), (P,)."""
    peaks_P1 = tilts_PS.max(axis=1, keepdims=True)
    odds_PS = np.exp(tilts_PS - peaks_P1)
    total_P = odds_PS.sum(axis=1)
    means_PK = np.asarray(np.einsum("ps,psk->pk", odds_PS, values_PSK) / total_P[:, None], dtype=np.float64)
    return means_PK, peaks_P1[:, 0] + np.log(total_P / tilts_PS.shape[1])


@dataclass(frozen=True)
class BestOfN:
    """The response with the highest weighted reward among n."""

    n: int
    means: tuple[Interval, ...]
    """Mean reward of each objective."""
    kl: Interval
    """KL to the reference, nats."""


def best_of_n(rewards_PSM: Floats, *, weights: Sequence[float], n: int) -> BestOfN:
    """Reward and KL of best-of-n, over all choices of n among each prompt's S samples.

    Responses of equal score share their probability, so the KL is that of the scores' own distribution: below the bound
    log(n) - (n-1)/n where scores are tied.

    Args:
        rewards_PSM: rewards of the reference's samples, (P, S, M).
        weights: one an objective.
        n: responses to choose from, 1..S.

    Raises:
        ValueError: if n is out of range.
    """
    weights_M = np.asarray(weights, dtype=np.float64)
    chosen = [chosen_of_n(rewards_SM @ weights_M, n) for rewards_SM in rewards_PSM]
    means_PM = [one.probability_S @ rewards_SM for one, rewards_SM in zip(chosen, rewards_PSM, strict=True)]
    means = tuple(mean_interval([float(row_M[index]) for row_M in means_PM]) for index in range(rewards_PSM.shape[2]))
    return BestOfN(n, means, mean_interval([one.kl for one in chosen]))


@dataclass(frozen=True)
class Chosen:
    """How often each of one prompt's samples is the best among n."""

    probability_S: Floats
    """Over all choices of n of the S samples; samples of equal score share theirs. They sum to 1."""
    kl: float
    """KL to the reference, nats; see KL_ESTIMATOR."""


KL_ESTIMATOR = "plug-in: the best of n draws from the samples' distribution over score levels"
"""What estimates best-of-n's KL: tied scores are one level. For n >= 4 it is low by up to 8% at S = n samples, by under
1% at S = 4n; for n = 2 by 33% and 3%."""


def chosen_of_n(scores_S: Floats, n: int) -> Chosen:
    """The best of n by the score, among one prompt's samples of the reference.

    Args:
        scores_S: weighted rewards, (S,).
        n: responses to choose from, 1..S.

    Raises:
        ValueError: if n is out of range.
    """
    num_samples = len(scores_S)
    if not 1 <= n <= num_samples:
        raise ValueError(f"n={n}: must be in 1..{num_samples}, the samples a prompt")
    _, level_S, count_L = np.unique(scores_S, return_inverse=True, return_counts=True)
    up_to_L = np.cumsum(count_L)
    below_L = np.concatenate([[0], up_to_L[:-1]])
    best_L = _choices(up_to_L, n, num_samples) - _choices(below_L, n, num_samples)
    # With replacement, as n fresh responses are drawn; in logarithms, as (1/256)^256 is no number above 0.
    log_drawn_L = n * np.log(up_to_L / num_samples) + np.log1p(-((below_L / up_to_L) ** n))
    kl = float((np.exp(log_drawn_L) * (log_drawn_L - np.log(count_L / num_samples))).sum())
    return Chosen((best_L / count_L)[level_S], kl)


def _choices(among_L: NDArray[Any], n: int, num_samples: int) -> Floats:
    """Share of the choices of n among all samples that lie among the given ones, shape (L,)."""
    held_L = np.maximum(among_L, n)
    logs_L = gammaln(held_L + 1) - gammaln(held_L - n + 1) - gammaln(num_samples + 1) + gammaln(num_samples - n + 1)
    return np.where(among_L >= n, np.exp(logs_L), 0.0)
