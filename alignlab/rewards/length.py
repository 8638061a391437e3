"""Minus the length of a response: what a unit of brevity is worth."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignlab.data.records import Prompt
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.rewards.base import TextReward


class LengthReward(TextReward):
    """-scale * (tokens or words of the response), in float32: bfloat16 cannot tell 256 from 257.

    Args:
        encoder: the base model's; its tokens are counted, without the one that ends a response.
        unit: `tokens` or `words` (split at white space).
        scale: reward units that one of them costs, > 0.
    """

    def __init__(self, encoder: PromptEncoder, *, unit: str, scale: float) -> None:
        super().__init__(f"length:{unit}:{scale:g}", encoder)
        self.unit, self.scale = unit, scale

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Rewards, never above 0, shape (n,)."""
        if self.unit == "tokens":
            return self._by_tokens(self.encoder.encode_all(list(zip(prompts, responses, strict=True)), sampled=True))
        return torch.tensor([-self.scale * len(response.split()) for response in responses])

    def score_encoded(self, rows: Sequence[Encoded]) -> Tensor:
        """The same for rows that are tokenised, shape (n,)."""
        return self._by_tokens(rows) if self.unit == "tokens" else super().score_encoded(rows)

    def _by_tokens(self, rows: Sequence[Encoded]) -> Tensor:
        lengths = [len(row.response_ids) - self.encoder.has_ended(row.response_ids) for row in rows]
        return torch.tensor([-self.scale * length for length in lengths])
