"""Pairs of a policy's own answers: sampled, scored, selected, labelled."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import FILES, MODEL, SCRATCH, TRAINING, if_kind, makes, named, off_toy, when
from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.uses import Uses, always, not_here
from alignlab.errors import require, require_one_of

SELECTIONS = ("extremes", "all", "random", "consistent", "pareto", "weighted")
LABELS = ("best", "bradley_terry")
_WEIGHTED = if_kind("algorithm.select", "weighted")


@dataclass
class PairsConfig(AlgorithmConfig):
    """Sample answers, score them by objective, and make pairs of them."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **MODEL,
            **SCRATCH,
            **when(makes, TRAINING),
            "dataset": always,
            **FILES,
            "dataset.pairs": off_toy,
            "dataset.exact_samples": off_toy,
            "generator": always,
            "generator.prompts": not_here,
            "algorithm": always,
            "algorithm.beta": named,
            "algorithm.temperature": if_kind("algorithm.labels", "bradley_terry"),
            "reward": named,
            "w": _WEIGHTED,
            "weights": _WEIGHTED,
            "trainer.max_length": always,
            "trainer.per_device_eval_batch_size": always,
            "seed": always,
        },
        data="prompts",
        rewards=frozenset({"named"}),
        samples=always,
        makes_rewards=True,
        writes=("rows", "scores", "README.md"),
    )
    sources: list[str] = MISSING
    rewards: dict[str, Any] = MISSING
    """Objective -> RewardConfig, as MODPO's."""
    beta: float = MISSING
    select: str = MISSING
    labels: str = MISSING
    temperature: float = MISSING
    min_margin: float = MISSING
    near_duplicates: float | None = MISSING

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")
        require_one_of("algorithm.select", self.select, SELECTIONS)
        require_one_of("algorithm.labels", self.labels, LABELS)
        good = 0 < self.temperature < math.inf
        require(good, "algorithm.temperature", self.temperature, "must be a finite number > 0, in the scorers' units")
        require(self.min_margin >= 0, "algorithm.min_margin", self.min_margin, "must be >= 0, in the scorers' units")
        alike = self.near_duplicates
        good = alike is None or 0 < alike <= 1
        require(good, "algorithm.near_duplicates", alike, "must be in (0, 1], or null to keep near copies")
        require(len(set(self.sources)) == len(self.sources), "algorithm.sources", self.sources, "names one twice")
