"""One training for every w: the adapter is a function of w (models/conditioned.py), and w is drawn for each batch.

The draws are a quasi-random sequence, so that any few consecutive ones cover all w, and a function of seed and step
alone: a resumed training draws the same.

Shape letters: P pairs of a forward, M objectives; B = 2P responses, T tokens.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.special import betaincinv  # type: ignore[import-untyped]
from torch import Tensor

from alignlab.config.names import REGRESSION_LOSSES
from alignlab.config.schema import PeftConfig
from alignlab.models.conditioned import gates_of, install_gates, set_gates
from alignlab.training.losses import PairLogps, PreferenceLoss, swap_where
from alignlab.training.preference import PreferenceTrainer, pair_logps

LEAST_WEIGHT = 1e-6
"""Draws keep this far from weights of 0 and 1, where the quantile function of a narrow distribution rounds to them."""


@dataclass(frozen=True)
class Condition:
    """How an adapter depends on w, and how w is drawn."""

    objectives: tuple[str, ...]
    """Two or more; their blocks lie in this order."""
    rank: int
    """Of each objective's block."""
    shared_rank: int
    """Of the block that is the same for every w."""
    draws: int
    """Different w of an optimizer step."""
    concentration: float
    """Of the symmetric Dirichlet distribution that w is drawn from: 1 is uniform, below 1 favours the ends."""
    seed: int

    def weights(self, index: int) -> list[float]:
        """The w of one draw, M weights that sum to 1.

        A Kronecker sequence with the generalised golden ratio, through the quantile functions of stick breaking.

        Args:
            index: counts the draws of a training from 0.
        """
        count = len(self.objectives) - 1
        ratio = _golden_ratio(count)
        start = hashlib.sha256(f"w of seed {self.seed}".encode()).digest()
        weights, rest = [], 1.0
        for axis in range(count):
            offset = int.from_bytes(start[4 * axis % 28 : 4 * axis % 28 + 4]) / 2**32
            uniform = (offset + (index + 1) * ratio ** -(axis + 1)) % 1
            part = float(betaincinv(self.concentration, self.concentration * (count - axis), uniform))
            part = min(max(part, LEAST_WEIGHT), 1 - LEAST_WEIGHT)
            weights.append(rest * part)
            rest *= 1 - part
        return [*weights, rest]

    def gates(self, weights: Sequence[float]) -> list[float]:
        """The gate of each rank of the adapter."""
        return gates_of(weights, [self.rank] * len(self.objectives), self.shared_rank)

    def peft(self, peft: PeftConfig) -> PeftConfig:
        """The settings of the one LoRA that holds all blocks: of the summed rank, at the scale of one block."""
        summed = self.rank * len(self.objectives) + self.shared_rank
        return replace(peft, r=summed, alpha=peft.alpha / peft.r * summed)


def _golden_ratio(dimensions: int) -> float:
    """The real root above 1 of x^(d+1) = x + 1."""
    root = 2.0
    for _ in range(60):
        root = (1 + root) ** (1 / (dimensions + 1))
    return root


class ConditionedTrainer(PreferenceTrainer):
    """PreferenceTrainer whose adapter, tilts and loss are those of the w at hand.

    Columns beside PreferenceTrainer's: chosen_rewards and rejected_rewards, M numbers each; for MODPO's losses also
    `labels`, M numbers: 1 where the objective ranks the chosen response higher, -1 where it ranks it lower.

    Args:
        condition: how the adapter depends on w.
        named: PreferenceTrainer's.
    """

    def __init__(self, *, condition: Condition, **named: Any) -> None:
        self.condition = condition
        super().__init__(min_forwards=condition.draws, **named)  # each draw has a forward of its own
        install_gates(self.model)

    def _weighted(self, forwards: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The forwards with the weights of each."""
        first, draws = self.state.global_step * self.condition.draws, self.condition.draws
        drawn = [self.condition.weights(first + number * draws // len(forwards)) for number in range(len(forwards))]
        return [{**forward, "w": weights} for forward, weights in zip(super()._weighted(forwards), drawn, strict=True)]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *given: Any, **named: Any) -> Tensor:
        """The loss of one forward at its w."""
        set_gates(model, self.condition.gates(inputs["w"]))
        self.loss = self.meter.loss = loss_at(self.loss, inputs["w"])
        return super().compute_loss(model, inputs, *given, **named)

    def _against_reference(self, log_probs_BT: Tensor, inputs: dict[str, Any]) -> tuple[PairLogps, Any]:
        """The pairs as the trained objective ranks them, and what the others' rewards add to the references, nats."""
        pairs, rewards = pair_logps(log_probs_BT, inputs), (inputs["chosen_rewards"], inputs["rejected_rewards"])
        weights_M = rewards[0].new_tensor(inputs["w"])
        if self.loss.loss_type not in REGRESSION_LOSSES:
            trained = int(weights_M.argmax())
            swapped_P = inputs["labels"][:, trained] < 0
            pairs = pairs.swapped(swapped_P)
            rewards = swap_where(swapped_P[:, None], *rewards)
            weights_M = weights_M.index_fill(0, torch.tensor([trained], device=weights_M.device), 0.0)
        chosen_P, rejected_P = (rewards_PM @ weights_M / self.loss.beta for rewards_PM in rewards)
        return pairs, (chosen_P, rejected_P)


def loss_at(loss: PreferenceLoss, weights: Sequence[float]) -> PreferenceLoss:
    """The loss at one w: MODPO's divides by the weight of the objective that is trained on, the heaviest."""
    return loss if loss.loss_type in REGRESSION_LOSSES else replace(loss, weight=max(weights))
