"""Preference losses as pure functions of log-probabilities, and MODPO as DPO against a tilted reference.

A pair is a prompt x with a chosen and a rejected response y; pi is the policy, pi_ref the reference. The log-ratio of a
response is log pi(y|x) - log pi_ref(y|x), in nats, summed over its tokens. D is chosen minus rejected, so

    margin = beta * D log-ratio

is the difference of the pair's implicit rewards (Rafailov et al. 2023, arXiv:2305.18290, eq. 5).

Shape letters: P pairs, B responses, M other objectives. Every loss returns one value a pair, shape (P,).
"""

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from alignlab.config.names import PER_TOKEN_LOSSES


def dpo(margins_P: Tensor) -> Tensor:
    """TRL's `sigmoid`: -log sigmoid(margin). Rafailov et al. 2023, arXiv:2305.18290, eq. 7."""
    return -F.logsigmoid(margins_P)


def hinge(margins_P: Tensor) -> Tensor:
    """max(0, 1 - margin). SLiC (Zhao et al. 2023, arXiv:2305.10425) on margins (arXiv:2309.06657)."""
    return torch.relu(1 - margins_P)


def robust(margins_P: Tensor, *, label_smoothing: float) -> Tensor:
    """DPO's loss made unbiased where a fraction `label_smoothing` of the labels is flipped.

    Chowdhury et al. 2024 (rDPO), arXiv:2403.00409.
    """
    kept, flipped = dpo(margins_P), dpo(-margins_P)
    return ((1 - label_smoothing) * kept - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def exo_pair(margins_P: Tensor, *, label_smoothing: float) -> Tensor:
    """Reverse KL from sigmoid(margin) to labels that are right with probability 1 - label_smoothing.

    Ji et al. 2024 (EXO), arXiv:2402.00856, eq. 16.
    """
    log_chosen_P, log_rejected_P = F.logsigmoid(margins_P), F.logsigmoid(-margins_P)
    chosen_P = log_chosen_P.exp() * (log_chosen_P - math.log1p(-label_smoothing))
    return chosen_P + log_rejected_P.exp() * (log_rejected_P - math.log(label_smoothing))


def discopop(margins_P: Tensor, *, tau: float = 0.05) -> Tensor:
    """DPO's loss for wrongly ordered pairs, exp(-margin) for rightly ordered ones, blended by sigmoid(margin / tau).

    Lu et al. 2024, arXiv:2406.08414, eq. 5.
    """
    blend_P = torch.sigmoid(margins_P / tau)
    return dpo(margins_P) * (1 - blend_P) + torch.exp(-margins_P) * blend_P


def ipo(mean_differences_P: Tensor, *, beta: float) -> Tensor:
    """(D mean log-ratio - 1 / (2 beta))^2, the mean being over a response's tokens.

    Azar et al. 2023, arXiv:2310.12036, eq. 17; the division by length is TRL's, agreed with the authors.
    """
    return (mean_differences_P - 1 / (2 * beta)) ** 2


def sigmoid_norm(mean_differences_P: Tensor, *, beta: float) -> Tensor:
    """DPO's loss on mean log-ratios a token. Lambert et al. 2024 (Tulu 3), arXiv:2411.15124."""
    return dpo(beta * mean_differences_P)


def squared(residuals_P: Tensor) -> Tensor:
    """residual^2, the residual being beta * D log-ratio - sum_i w_i D r_i; zero for every pair at pi_ref exp(w.r/beta).

    Gao et al. 2024 (REBEL), arXiv:2404.16767, eq. 2, with eta = 1/beta; also Fisch et al. 2024, arXiv:2405.19316.
    Over all pairs of n responses, with residual d_i - d_j, the mean is 2/(n - 1) sum_i (d_i - mean d)^2: it takes the
    n responses once each.
    """
    return residuals_P**2


def huber(residuals_P: Tensor, *, threshold: float) -> Tensor:
    """`squared` up to the threshold, linear beyond: 2 threshold |residual| - threshold^2."""
    return 2 * F.huber_loss(residuals_P, torch.zeros_like(residuals_P), reduction="none", delta=threshold)


def clipped(residuals_P: Tensor, *, threshold: float) -> Tensor:
    """`squared` up to the threshold, constant beyond: such a pair has no gradient until the others bring it nearer."""
    return residuals_P.clamp(-threshold, threshold) ** 2


def modpo(differences_P: Tensor, reward_gaps_PM: Tensor, *, weight: float, weights_M: Tensor, beta: float) -> Tensor:
    """MODPO as it is published: DPO's margin over w_k, less the other objectives' weighted reward gaps over w_k.

    -log sigmoid((beta / w_k) D log-ratio - (1 / w_k) sum_i w_i D r_i). Training computes the same as DPO's
    loss at temperature beta / w_k, of pairs whose reference is tilted (`PairLogps.tilted`).

    Args:
        differences_P: D log-ratio against the untilted reference, nats.
        reward_gaps_PM: D r_i, reward of the chosen minus that of the rejected response.
        weight: w_k of the objective whose labels are trained on, > 0.
        weights_M: w_i of the other objectives, >= 0.
        beta: KL strength, > 0, 1/nat.

    Source: Zhou et al. 2023, arXiv:2310.03708, eq. 11.
    """
    return dpo(beta / weight * differences_P - reward_gaps_PM @ weights_M / weight)


def reward_tilt(rewards_BM: Tensor, *, weights_M: Tensor, beta: float) -> Tensor:
    """What the other objectives add to a response's reference log-probability: (1/beta) sum_i w_i r_i, nats, (B,).

    Args:
        rewards_BM: rewards of the M other objectives, higher is better, each in its own unit.
        weights_M: their weights, >= 0.
        beta: KL strength, > 0, 1/nat.

    Raises:
        ValueError: if beta <= 0, or a reward is not finite; names the row.
    """
    if beta <= 0:
        raise ValueError(f"beta={beta}: must be > 0")
    finite_B = torch.isfinite(rewards_BM).all(dim=1)
    if not finite_B.all():
        raise ValueError(f"row {int((~finite_B).nonzero()[0])}: a reward is not finite")
    return rewards_BM @ weights_M / beta


def safety_tilt(gaps_P: Tensor, *, offset: float, beta: float) -> Tensor:
    """What SafeDPO adds to the chosen responses' reference log-probabilities, nats, (P,).

    -log sigmoid(beta D log-ratio - (u_l - u_w) offset) is DPO's loss against the reference with this tilt.

    Args:
        gaps_P: u_l - u_w, u being 1 for an unsafe response.
        offset: Delta, >= 0.
        beta: KL strength, > 0, 1/nat.

    Source: Kim et al. 2025 (SafeDPO), arXiv:2505.20065.
    """
    return offset / beta * gaps_P.double()


def swap_where(which: Tensor, chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor]:
    """(chosen, rejected), swapped where `which` is true.

    Args:
        which: bool, of a shape that broadcasts to theirs.
        chosen: any shape.
        rejected: of the same shape.
    """
    return torch.where(which, rejected, chosen), torch.where(which, chosen, rejected)


@dataclass(frozen=True)
class PairLogps:
    """Log-probabilities of P pairs, each (P,), nats, summed over a response's tokens."""

    policy_chosen_P: Tensor
    policy_rejected_P: Tensor
    ref_chosen_P: Tensor
    ref_rejected_P: Tensor
    chosen_lengths_P: Tensor
    """Tokens of the responses, for the losses that divide by them."""
    rejected_lengths_P: Tensor

    @property
    def log_ratios(self) -> tuple[Tensor, Tensor]:
        """Log pi(y|x) - log pi_ref(y|x) of chosen and rejected responses."""
        return self.policy_chosen_P - self.ref_chosen_P, self.policy_rejected_P - self.ref_rejected_P

    @property
    def differences_P(self) -> Tensor:
        """D log-ratio."""
        chosen_P, rejected_P = self.log_ratios
        return chosen_P - rejected_P

    @property
    def mean_differences_P(self) -> Tensor:
        """D log-ratio a token: each side divided by its own length."""
        chosen_P, rejected_P = self.log_ratios
        return chosen_P / self.chosen_lengths_P.clamp(min=1) - rejected_P / self.rejected_lengths_P.clamp(min=1)

    @property
    def likelier_P(self) -> Tensor:
        """The policy's log-probability a token, of the response that it finds likelier."""
        chosen_P = self.policy_chosen_P / self.chosen_lengths_P.clamp(min=1)
        return torch.maximum(chosen_P, self.policy_rejected_P / self.rejected_lengths_P.clamp(min=1))

    def tilted(self, chosen_tilt_P: Tensor, rejected_tilt_P: Tensor) -> "PairLogps":
        """The same pairs against a tilted reference; tilts are `reward_tilt`'s, each (P,)."""
        chosen_P, rejected_P = self.ref_chosen_P + chosen_tilt_P, self.ref_rejected_P + rejected_tilt_P
        return replace(self, ref_chosen_P=chosen_P, ref_rejected_P=rejected_P)

    def swapped(self, which_P: Tensor) -> "PairLogps":
        """The same pairs, chosen and rejected swapped in some of them.

        Args:
            which_P: true for those.
        """
        policy = swap_where(which_P, self.policy_chosen_P, self.policy_rejected_P)
        ref = swap_where(which_P, self.ref_chosen_P, self.ref_rejected_P)
        lengths = swap_where(which_P, self.chosen_lengths_P, self.rejected_lengths_P)
        return PairLogps(*policy, *ref, *lengths)

    def untrained(self) -> "PairLogps":
        """The same pairs under the policy before training, which is the reference."""
        return replace(self, policy_chosen_P=self.ref_chosen_P, policy_rejected_P=self.ref_rejected_P)


@dataclass(frozen=True)
class PreferenceLoss:
    """A loss and its settings.

    Of pairs whose reference the other objectives' rewards tilt, with their trained objective's weight, this is MODPO's;
    who tilts is the caller. A regression loss takes a reference that all rewards tilt: the margin inside it is then
    the residual.
    """

    loss_type: str
    """One of alignlab.config.names.LOSSES, TRL's names, or of REGRESSION_LOSSES."""
    beta: float
    """KL strength, > 0, 1/nat."""
    weight: float = 1.0
    """w_k of the objective whose labels are trained on."""
    label_smoothing: float = 0.0
    """Fraction of labels taken to be wrong; only robust and exo_pair have a use for it."""
    sft_weight: float = 0.0
    """Weight of the chosen responses' own loss: see `chosen_nll`."""
    threshold: float = 1.0
    """Residual beyond which huber is linear and clipped constant, in the rewards' unit."""

    @property
    def temperature(self) -> float:
        """Beta / w_k."""
        return self.beta / self.weight

    def per_pair(self, pairs: PairLogps) -> Tensor:
        """The loss of every pair, (P,), without the chosen responses' own.

        Args:
            pairs: the policy's log-probabilities and the reference's; tilted where other objectives weigh.

        Raises:
            ValueError: for an unknown loss, or one that divides by lengths with a weight other than 1.
        """
        if self.loss_type in PER_TOKEN_LOSSES:
            if self.weight != 1:
                raise ValueError(f"{self.loss_type}: divides each response's tilt by its length, so needs weight=1")
            per_token = ipo if self.loss_type == "ipo" else sigmoid_norm
            return per_token(pairs.mean_differences_P, beta=self.beta)
        margins_P = self.temperature * pairs.differences_P
        if self.loss_type in _OF_MARGINS:
            return _OF_MARGINS[self.loss_type](margins_P)
        if self.loss_type in _THRESHOLDED:
            return _THRESHOLDED[self.loss_type](margins_P, threshold=self.threshold)
        if self.loss_type in _SMOOTHED:
            return _SMOOTHED[self.loss_type](margins_P, label_smoothing=self.label_smoothing)
        raise ValueError(f"loss_type={self.loss_type}: unknown")


_OF_MARGINS = {"sigmoid": dpo, "hinge": hinge, "discopop": discopop, "squared": squared}
_THRESHOLDED = {"huber": huber, "clipped": clipped}
_SMOOTHED = {"robust": robust, "exo_pair": exo_pair}


def chosen_nll(log_probs_PT: Tensor, starts_P: Tensor, counts_P: Tensor) -> Tensor:
    """Minus the mean log-probability a token of each chosen response, from a token on, nats, (P,).

    A mean of each response's mean, not of all tokens: so it is the same however a batch is split into forwards. A pair
    that counts no token has 0 and stays in the mean over pairs.

    Args:
        log_probs_PT: of the chosen responses' tokens; zero where nothing is scored.
        starts_P: the position on the T axis from which tokens count.
        counts_P: how many count.
    """
    positions_T = torch.arange(log_probs_PT.shape[1], device=log_probs_PT.device)
    counted_PT = (positions_T >= starts_P[:, None]) & (counts_P > 0)[:, None]
    return -(log_probs_PT * counted_PT).sum(dim=1) / counts_P.clamp(min=1)
