"""Losses on preference pairs alone, without any reward: several objectives' at once, or one's under safety labels."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import LOSS, MODEL, ON_ONE_PROCESS, PREFERENCES, SAMPLING, SCORING, TRAINING
from alignlab.config.schema.algorithm import AlgorithmConfig, require_preference_loss
from alignlab.config.uses import Uses, always
from alignlab.errors import require


@dataclass
class LossWeightedConfig(AlgorithmConfig):
    """The weighted sum of the objectives' DPO losses, each on its own pairs."""

    uses: ClassVar[Uses] = Uses(
        reads={**PREFERENCES, **MODEL, **TRAINING, **LOSS, **SAMPLING, **SCORING, "w": always, "weights": always},
        data="preferences",
        trains=True,
        weighs=True,
        labels=False,
        samples=SAMPLING["generator.samples"],
        writes=("adapter", "generations.jsonl", "scores.jsonl"),
        after_sweep="alignlab.jobs.front",
    )
    beta: float = MISSING
    loss_type: str = MISSING
    label_smoothing: float = MISSING

    def __post_init__(self) -> None:
        require_preference_loss(self.beta, self.loss_type, self.label_smoothing)


@dataclass
class RacoConfig(LossWeightedConfig):
    """The same losses by conflict-averse descent, limited by w; every objective's gradient is taken on its own."""

    uses: ClassVar[Uses] = replace(LossWeightedConfig.uses, reads={**LossWeightedConfig.uses.reads, **ON_ONE_PROCESS})
    conflict: float = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.conflict < 1, "algorithm.conflict", self.conflict, "must be in [0, 1)")


@dataclass
class SafeDpoConfig(AlgorithmConfig):
    """DPO on one objective's pairs, reordered by safety labels."""

    uses: ClassVar[Uses] = replace(
        LossWeightedConfig.uses,
        reads={**PREFERENCES, **MODEL, **TRAINING, **SAMPLING, **SCORING, "algorithm": always},
        weighs=False,
        labels=True,
    )
    objective: str | None = MISSING
    beta: float = MISSING
    offset: float = MISSING

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")
        require(0 <= self.offset < math.inf, "algorithm.offset", self.offset, "must be a finite number >= 0")
