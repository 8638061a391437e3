"""The cost model's loss: which response of a pair is worse, and whether each is safe at all.

A cost c(x, y) is high for a bad response, and 0 parts safe from unsafe. For a pair whose response y_w is the worse one,

    -log sigmoid(c(y_w) - c(y_l)) - log sigmoid(s_w c(y_w)) - log sigmoid(s_l c(y_l)),    s = +1 if unsafe, -1 if safe.

Here higher is better everywhere, so the network's score is -c. Shape letters: P pairs.

Source: Dai et al. 2023 (Safe RLHF), arXiv:2310.12773, eq. 6.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from trl.trainer.reward_trainer import DataCollatorForPreference

CHOSEN_SAFE, REJECTED_SAFE = "chosen_safe", "rejected_safe"
"""Columns of a pair's safety labels."""
SAFE = "safe"
"""The same labels in a batch, (2, P)."""


def cost_loss(scores_2P: Tensor, safe_2P: Tensor) -> Tensor:
    """The loss of every pair, (P,).

    Args:
        scores_2P: minus the costs of the safer and of the worse responses, (2, P).
        safe_2P: whether each is labelled safe, bool, (2, P).
    """
    chosen_P, rejected_P = scores_2P
    signs_2P = torch.where(safe_2P, 1.0, -1.0).to(scores_2P)
    return -F.logsigmoid(chosen_P - rejected_P) - F.logsigmoid(signs_2P * scores_2P).sum(dim=0)


class CostCollator(DataCollatorForPreference):  # type: ignore[misc]  # trl is untyped
    """TRL's batches, with the safety labels of the chosen and of the rejected responses."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """One batch."""
        safe_2P = torch.tensor([[row[column] for row in examples] for column in (CHOSEN_SAFE, REJECTED_SAFE)])
        return {**super().torch_call(examples), SAFE: safe_2P}
