"""Rewards: where the score of an objective comes from."""

import math
from dataclasses import dataclass

from alignlab.config.errors import require, require_one_of


@dataclass
class RewardConfig:
    """Where an objective's reward comes from. null means: as the group `reward` says, or made by alignlab."""

    kind: str | None = None
    adapter: str | None = None
    beta: float | None = None

    def __post_init__(self) -> None:
        if self.kind is not None:
            require_one_of("reward.kind", self.kind, ("implicit", "gold"))
        number = isinstance(self.beta, int | float) and not isinstance(self.beta, bool)
        good = self.beta is None or (number and 0 < self.beta < math.inf)
        require(good, "reward.beta", self.beta, "must be a finite number > 0, in 1/nat")
        text = self.adapter is None or isinstance(self.adapter, str)
        require(text, "reward.adapter", self.adapter, "must be a folder")
