"""Policies that are made while decoding, of what was trained or scored before."""

import math
from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import both, either, gold_rewards, on_toy, scored
from alignlab.config.schema.algorithm import AlgorithmConfig, EvaluateConfig
from alignlab.config.uses import Uses, always
from alignlab.errors import require

SAMPLED = ("generations.jsonl", "scores.jsonl")


@dataclass
class BestOfNConfig(AlgorithmConfig):
    """Choose among n samples of the reference by their weighted rewards."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **EvaluateConfig.uses.reads,
            "algorithm.beta": both(gold_rewards, on_toy),
            "w": always,
            "weights": always,
        },
        data="preferences",
        weighs=True,
        labels=False,
        samples=either(scored, gold_rewards),
        picks_by_scorers=True,
        writes=SAMPLED,
        after_sweep="alignlab.jobs.front",
    )
    n: int = MISSING
    samples: int | None = MISSING
    normalise: bool = MISSING
    beta: float = MISSING

    def __post_init__(self) -> None:
        require(self.n >= 1, "algorithm.n", self.n, "must be >= 1")
        rule = f"must be at least algorithm.n={self.n}, or null for generator.samples"
        require(self.samples is None or self.samples >= self.n, "algorithm.samples", self.samples, rule)
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")
