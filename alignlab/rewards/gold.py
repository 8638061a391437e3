"""The dataset's own programs as rewards: known without noise, on the toy alone."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignlab.data.records import Prompt, prompt_text
from alignlab.data.worlds import toy
from alignlab.models.prompts import PromptEncoder
from alignlab.rewards.base import TextReward


class GoldReward(TextReward):
    """A named program of the toy world.

    Args:
        name: one of toy.GOLD.
        encoder: reads tokens back into texts.
    """

    def __init__(self, name: str, encoder: PromptEncoder) -> None:
        super().__init__(f"gold:{name}:{toy.WORLD_VERSION}", encoder)
        self._program = toy.GOLD[name]

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Gold rewards, shape (n,)."""
        pairs = zip(prompts, responses, strict=True)
        return torch.tensor([self._program(prompt_text(prompt), response) for prompt, response in pairs])
