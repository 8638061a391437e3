"""What the training log says of pairs and tokens: TRL's names, summed where the model is, read when a line is written.

TRL's own metrics fetch some thirteen numbers from every process after every forward, and a GPU waits for each. Here
they stay tensors until the log asks. A line speaks of all pairs since the line before; what it says of tokens (entropy,
logits, accuracy), which costs a pass over the vocabulary, is measured on its last step.

Shape letters: B rows of a forward, the chosen ones first; P = B / 2 pairs; T tokens.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import FusedCausalLMOutput

PAIR_METRICS = (
    "logps/chosen",
    "logps/rejected",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
)


class Meter:
    """Sums since the last reading.

    Args:
        beta: what a log-ratio is multiplied with to be a reward.
    """

    def __init__(self, beta: float) -> None:
        self.beta = beta
        self.num_tokens = 0
        self._sums: dict[str, Tensor] = {}

    def add(self, outputs: FusedCausalLMOutput, inputs: Mapping[str, Tensor]) -> None:
        """Adds a forward's pairs, and its tokens where the outputs tell more of them than their log-probabilities."""
        assert outputs.log_probs is not None
        chosen_P, rejected_P = outputs.log_probs.detach().sum(1, dtype=torch.float64).chunk(2)
        left_P = self.beta * (chosen_P - inputs["ref_chosen_logps"])
        right_P = self.beta * (rejected_P - inputs["ref_rejected_logps"])
        values = (chosen_P, rejected_P, left_P, right_P, left_P - right_P, left_P > right_P)
        self._add("pairs", [torch.ones_like(chosen_P), *values])
        self._add("read", [inputs["attention_mask"]])
        if outputs.entropy is not None:
            self._add_tokens(outputs, inputs["completion_mask"][:, 1:])

    def _add_tokens(self, outputs: FusedCausalLMOutput, scored_BT: Tensor) -> None:
        assert outputs.entropy is not None
        assert outputs.mean_logits is not None
        assert outputs.is_top1 is not None
        on_chosen, on_rejected = scored_BT.chunk(2)
        logits_chosen, logits_rejected = outputs.mean_logits.chunk(2)
        top = outputs.is_top1.chunk(2)[0]
        self._add("tokens", [on_chosen, on_rejected, outputs.entropy, logits_chosen, logits_rejected, top])

    def _add(self, name: str, values: list[Tensor]) -> None:
        sums = torch.stack([value.detach().sum(dtype=torch.float64) for value in values])
        self._sums[name] = self._sums[name] + sums if name in self._sums else sums

    def read(self, accelerator: Any) -> dict[str, float]:
        """The metrics since the last reading, over all processes; the only place that waits for the model."""
        sums = {name: accelerator.reduce(value, "sum").tolist() for name, value in self._sums.items()}
        self._sums = {}
        if not sums:
            return {}
        self.num_tokens += int(sums["read"][0])
        pairs, *totals = sums["pairs"]
        metrics = {name: total / pairs for name, total in zip(PAIR_METRICS, totals, strict=True)}
        if "tokens" in sums:
            chosen, rejected, entropy, logits_chosen, logits_rejected, top = sums["tokens"]
            metrics |= {
                "entropy": entropy / (chosen + rejected),
                "logits/chosen": logits_chosen / chosen,
                "logits/rejected": logits_rejected / rejected,
                "mean_token_accuracy": top / chosen,
            }
        return {**metrics, "num_tokens": float(self.num_tokens)}
