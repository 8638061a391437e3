"""The dataset's own programs as rewards: known without noise, on the toy alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignlab.data import toy
from alignlab.models.prompts import Encoded, PromptEncoder


class GoldReward:
    """A named program of the toy world.

    Args:
        name: one of toy.GOLD.
        encoder: reads tokens back into texts.
    """

    def __init__(self, name: str, encoder: PromptEncoder) -> None:
        self.id = f"gold:{name}:{toy.WORLD_VERSION}"
        self._program, self._encoder = toy.GOLD[name], encoder

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
        """Gold rewards, shape (n,)."""
        pairs = zip(prompts, responses, strict=True)
        return torch.tensor([self._program(prompt, response) for prompt, response in pairs])

    def score_encoded(self, rows: Sequence[Encoded]) -> Tensor:
        """The same for rows that are tokenised, shape (n,)."""
        prompts = [self._encoder.raw_prompt(row.prompt_ids) for row in rows]
        return self.score(prompts, [self._encoder.response_text(row.response_ids) for row in rows])
