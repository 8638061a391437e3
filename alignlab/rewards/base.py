"""What a reward is: one object that serves as a MODPO margin while training and as a scorer afterwards."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from alignlab.models.prompts import Encoded


class Reward(Protocol):
    """Scores responses; higher is better, so a cost enters negated."""

    id: str
    """What the scores depend on, beside the texts: goes into cache keys."""

    def score(self, prompts: Sequence[str], responses: Sequence[str]) -> Tensor:
        """float32 scores, shape (n,), in the reward's own unit."""
        ...

    def score_encoded(self, rows: Sequence[Encoded]) -> Tensor:
        """The same for responses that are tokenised with the base model's template, shape (n,)."""
        ...
