"""The exact front where the rewards are known: the optimum of the KL-regularised objective, from reference samples.

For weights w and KL strength beta, the policy that maximises

    J(pi) = E_x E_{y~pi(.|x)} [ w.r(x,y) ] - beta * E_x KL( pi(.|x) || pi_ref(.|x) )

is pi_w(y|x) = pi_ref(y|x) * exp(w.r(x,y) / beta) / Z_x (Rafailov et al. 2023, arXiv:2305.18290, eq. 4; with several
rewards Zhou et al. 2023, arXiv:2310.03708, eq. 5 and 6). Nothing has to be trained to know how well it does: weigh
samples of pi_ref by exp(w.r/beta) and normalise within the prompt. That is sound only while many samples carry the
weight, so the effective sample size is checked.

Shapes: P prompts, S samples of pi_ref a prompt, M objectives. Rewards, and J, in reward units; beta in reward/nat.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ExactPoint:
    """The optimum for one weighting, and where the reference stands by the same objective."""

    means_M: Floats
    """Mean reward of each objective under pi_w."""
    ref_means_M: Floats
    """Mean reward of each objective under pi_ref."""
    kl: float
    """KL(pi_w || pi_ref), mean over prompts, nats."""
    J_star: float
    """The objective at its optimum, beta * mean_x log Z_x; equals w.means_M - beta * kl."""
    J_ref: float
    """The objective of the reference, whose KL is 0: the least that training should keep."""
    ess_P: Floats
    """Effective sample size of each prompt, between 1 and S."""


def exact_point(rewards: ArrayLike, *, weights: ArrayLike, beta: float, min_ess: float = 50.0) -> ExactPoint:
    """The KL-regularised optimum by self-normalised importance weighting over samples of the reference.

    The error falls as 1/ESS: `J_star` is low by about beta * (1/ESS - 1/S) / 2 on average, the means by a like order.

    Args:
        rewards: (P, S, M) gold rewards of S samples of pi_ref for each of P prompts.
        weights: (M,) one weight an objective; they need not sum to 1, and zeros give the reference itself.
        beta: KL strength, > 0, reward units a nat.
        min_ess: the least effective sample size that any prompt may have.

    Raises:
        ValueError: for a wrong shape, a value that is not finite, beta <= 0, or a prompt with fewer than `min_ess`
            effective samples (names the prompt's index; more samples or a larger beta mend it).
    """
    rewards_PSM, weights_M = _checked(rewards, weights, beta)
    tilts_PS = rewards_PSM @ weights_M / beta
    peaks_P = tilts_PS.max(axis=1)
    odds_PS = np.exp(tilts_PS - peaks_P[:, None])  # at most 1: exp cannot overflow
    shares_PS = odds_PS / odds_PS.sum(axis=1, keepdims=True)
    ess_P = 1.0 / np.square(shares_PS).sum(axis=1)
    _refuse_few_samples(ess_P, min_ess, num_samples=tilts_PS.shape[1])
    log_z_P = peaks_P + np.log(odds_PS.mean(axis=1))
    return ExactPoint(
        means_M=np.einsum("ps,psm->pm", shares_PS, rewards_PSM).mean(axis=0),
        ref_means_M=rewards_PSM.mean(axis=(0, 1)),
        kl=float(((shares_PS * tilts_PS).sum(axis=1) - log_z_P).mean()),  # log(pi_w/pi_ref) = w.r/beta - log Z_x
        J_star=float(beta * log_z_P.mean()),
        J_ref=float(beta * tilts_PS.mean()),
        ess_P=ess_P,
    )


def attained_share(J: float, *, J_ref: float, J_star: float) -> float | None:
    """The share of what can be gained over the reference that a policy has gained: 0 at pi_ref, 1 at the optimum.

    Negative for a policy worse than the reference; slightly above 1 only by sampling error. None where there is nothing
    to gain (the rewards, so weighted, are constant), because 0/0 is neither a success nor a failure.

    Args:
        J: of the policy, reward units.
        J_ref: of the reference.
        J_star: of the optimum.
    """
    gain = J_star - J_ref
    if gain <= 1e-9 * max(1.0, abs(J_star), abs(J_ref)):
        return None
    return (J - J_ref) / gain


def kl_to_optimum(J: float, *, J_star: float, beta: float) -> float:
    """KL(pi || pi_w) in nats, mean over prompts, from the objective alone: (J_star - J) / beta.

    Why: log pi_w = log pi_ref + w.r/beta - log Z_x. Put that into KL(pi || pi_w) = E_pi[log pi - log pi_w]:

        KL(pi || pi_w) = KL(pi || pi_ref) - E_pi[w.r]/beta + E_x[log Z_x] = (J_star - J(pi)) / beta.

    So J falls short of its optimum by exactly beta times the distance to it. Follows from Rafailov et al. 2023,
    arXiv:2305.18290, appendix A.1. Below 0 only by the sampling error of J and J_star.

    Args:
        J: of the policy, reward units.
        J_star: of the optimum.
        beta: KL strength, reward units a nat.

    Raises:
        ValueError: if beta <= 0.
    """
    if not beta > 0:
        raise ValueError(f"beta={beta}: must be > 0")
    return (J_star - J) / beta


def _checked(rewards: ArrayLike, weights: ArrayLike, beta: float) -> tuple[Floats, Floats]:
    """Both arrays as float64, after their shapes and values were checked."""
    rewards_PSM, weights_M = np.asarray(rewards, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if rewards_PSM.ndim != 3 or 0 in rewards_PSM.shape:
        raise ValueError(
            f"rewards of shape {rewards_PSM.shape}: must be (prompts, samples, objectives), none of them 0"
        )
    if weights_M.shape != rewards_PSM.shape[2:]:
        raise ValueError(f"weights of shape {weights_M.shape}: must be ({rewards_PSM.shape[2]},), one an objective")
    if not np.isfinite(rewards_PSM).all():
        raise ValueError(f"rewards: must be finite, prompt {np.argwhere(~np.isfinite(rewards_PSM))[0][0]} is not")
    if not np.isfinite(weights_M).all():
        raise ValueError(f"weights={weights_M.tolist()}: must be finite")
    if not (np.isfinite(beta) and beta > 0):
        raise ValueError(f"beta={beta}: must be > 0 and finite")
    return rewards_PSM, weights_M


def _refuse_few_samples(ess_P: Floats, min_ess: float, *, num_samples: int) -> None:
    """Raise for the prompt whose samples cover its optimum worst, if they do not cover it well enough."""
    worst = int(ess_P.argmin())
    if ess_P[worst] < min_ess:
        raise ValueError(
            f"prompt {worst}: effective sample size {ess_P[worst]:.1f} of {num_samples} must be at least {min_ess:g}; "
            "take more samples or a larger beta"
        )
