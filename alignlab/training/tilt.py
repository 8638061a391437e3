"""MODPO as DPO against a tilted reference. Shape letters: B rows, M other objectives."""

import torch
from torch import Tensor


def tilted_reference(ref_logps_B: Tensor, rewards_BM: Tensor, *, weights_M: Tensor, beta: float) -> Tensor:
    """Reference log-probabilities tilted by the other objectives' rewards, shape (B,), in nats.

    log pi_ref'(y|x) = log pi_ref(y|x) + (1/beta) * sum_i w_i r_i(x,y). DPO against it with temperature beta / w_k is
    MODPO with trained weight w_k.

    Args:
        ref_logps_B: log pi_ref(y|x), summed over response tokens, nats.
        rewards_BM: rewards of the M other objectives, higher is better, each in its own unit.
        weights_M: their weights, >= 0.
        beta: KL strength, > 0, 1/nat.

    Raises:
        ValueError: if beta <= 0, or a reward is not finite; names the row.

    Source: Zhou et al. 2023, arXiv:2310.03708, eq. 11, rearranged.
    """
    if beta <= 0:
        raise ValueError(f"beta={beta}: must be > 0")
    finite_B = torch.isfinite(rewards_BM).all(dim=1)
    if not finite_B.all():
        raise ValueError(f"row {int((~finite_B).nonzero()[0])}: a reward is not finite")
    return ref_logps_B + rewards_BM @ weights_M / beta
