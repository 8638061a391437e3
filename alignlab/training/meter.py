"""Accumulate TRL's training metrics on the device; synchronise only when logging.

TRL's own metrics fetch some thirteen numbers from every process after every forward, and a GPU waits for each. A log
line here covers all pairs since the line before; what it says of tokens (entropy, logits, accuracy), which costs a pass
over the vocabulary, is measured on its last step.

Shape letters: P pairs of a forward; B = 2P responses, the chosen ones first; T tokens.
"""

from typing import Any, Protocol

import torch
from torch import Tensor

from alignlab.training.losses import PairLogps, PreferenceLoss

PAIR_METRICS = (
    "logps/chosen",
    "logps/rejected",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
)
"""TRL's names. `rewards/*` are the implicit rewards beta * log(pi / pi_ref), against the untilted reference."""
TILTED_METRICS = ("tilted/margins", "tilted/accuracies", "untrained_loss")
"""Only where the reference is tilted: the margin inside the loss, how often it is positive, and the loss
that the untrained policy has on the same pairs."""


class TokenOutputs(Protocol):
    """What the engine says of a forward's scored tokens, each (B, T); all but the first may be None."""

    log_probs: Tensor
    entropy: Tensor | None
    mean_logits: Tensor | None
    is_top1: Tensor | None


class Meter:
    """Sums since the last log line.

    Args:
        loss: gives rewards their scale, and the untrained policy's loss.
    """

    def __init__(self, loss: PreferenceLoss) -> None:
        self.loss = loss
        self.steps: list[list[float]] = []
        """Of every optimizer step that was read: the number of pairs, and sums over these of the loss, of the untrained
        policy's loss on them, and of the rise of the likelier response's log-probability a token, nats."""
        self._new_tokens = 0
        self._sums: dict[str, Tensor] = {}
        self._new_steps: list[Tensor] = []

    def begin_step(self, device: torch.device) -> None:
        """Start an optimizer step; what is added from now on belongs to it."""
        self._new_steps.append(torch.zeros(4, dtype=torch.float64, device=device))

    @torch.no_grad()
    def add(
        self,
        outputs: TokenOutputs,
        pairs: PairLogps,
        tilts: tuple[Tensor, Tensor] | None,
        losses_P: Tensor,
        num_tokens: int,
    ) -> None:
        """Add a forward.

        Args:
            outputs: per-token values (B, T); entropy, logits and accuracy only where they were computed.
            pairs: log-probabilities against the untilted reference.
            tilts: nats that are added to the references of chosen and rejected responses, each (P,).
            losses_P: the pairs' losses, without the chosen responses' own.
            num_tokens: tokens of prompts and responses.
        """
        chosen_P, rejected_P = (self.loss.beta * ratio for ratio in pairs.log_ratios)
        values = (pairs.policy_chosen_P, pairs.policy_rejected_P, chosen_P, rejected_P)
        self._add("pairs", [torch.ones_like(chosen_P), *values, chosen_P - rejected_P, chosen_P > rejected_P])
        self._new_tokens += num_tokens
        untrained = pairs.untrained() if tilts is None else pairs.untrained().tilted(*tilts)
        rises_P = pairs.likelier_P - pairs.untrained().likelier_P
        if not self._new_steps:  # a loss that is computed outside of training
            self.begin_step(losses_P.device)
        self._new_steps[-1] += _summed([torch.ones_like(losses_P), losses_P, self.loss.per_pair(untrained), rises_P])
        if tilts is not None:
            margins_P = self.loss.temperature * pairs.tilted(*tilts).differences_P
            self._add("tilted", [margins_P, margins_P > 0])
        if outputs.entropy is not None:
            self._add_tokens(outputs, pairs)

    def _add_tokens(self, outputs: TokenOutputs, pairs: PairLogps) -> None:
        assert outputs.entropy is not None
        assert outputs.mean_logits is not None
        assert outputs.is_top1 is not None
        lengths = (pairs.chosen_lengths_P, pairs.rejected_lengths_P)
        logits_chosen, logits_rejected = outputs.mean_logits.chunk(2)
        top = outputs.is_top1.chunk(2)[0]
        self._add("tokens", [*lengths, outputs.entropy, logits_chosen, logits_rejected, top])

    def _add(self, name: str, values: list[Tensor]) -> None:
        sums = _summed(values)
        self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def read(self, accelerator: Any) -> dict[str, float]:
        """The metrics since the last reading, over all processes; the only part that waits for the model."""
        if not self._sums:
            return {}
        self._add("read", [torch.tensor([self._new_tokens], device=accelerator.device)])
        sums = {name: accelerator.reduce(value, "sum").tolist() for name, value in self._sums.items()}
        steps = accelerator.reduce(torch.stack(self._new_steps), "sum").tolist()
        self.steps += steps
        self._sums, self._new_tokens, self._new_steps = {}, 0, []
        pairs, *totals = sums["pairs"]
        metrics = {name: total / pairs for name, total in zip(PAIR_METRICS, totals, strict=True)}
        if "tilted" in sums:
            untrained = sum(step[2] for step in steps) / pairs
            values = (*(total / pairs for total in sums["tilted"]), untrained)
            metrics |= dict(zip(TILTED_METRICS, values, strict=True))
        if "tokens" in sums:
            chosen, rejected, entropy, logits_chosen, logits_rejected, top = sums["tokens"]
            metrics |= {
                "entropy": entropy / (chosen + rejected),
                "logits/chosen": logits_chosen / chosen,
                "logits/rejected": logits_rejected / rejected,
                "mean_token_accuracy": top / chosen,
            }
        return {**metrics, "num_tokens": float(sums["read"][0])}


def _summed(values: list[Tensor]) -> Tensor:
    return torch.stack([value.sum(dtype=torch.float64) for value in values])
