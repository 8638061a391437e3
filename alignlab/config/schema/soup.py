"""Soups: weighted sums of what adapters add to the weights."""

import math
from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import (
    MODEL,
    OWN_PAIRS,
    PREFERENCES,
    SAMPLING,
    SCORING,
    TRAINING,
    extrapolates,
    makes,
    when,
)
from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.uses import Uses, always
from alignlab.errors import require


@dataclass
class SoupConfig(AlgorithmConfig):
    """Add up the endpoints' changes of the weights by w."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **PREFERENCES,
            **MODEL,
            **OWN_PAIRS,
            **when(makes, TRAINING),
            **SAMPLING,
            **SCORING,
            "algorithm": always,
            "algorithm.extrapolate": extrapolates,
            "w": always,
            "weights": always,
            "trainer.per_device_eval_batch_size": always,
            "trainer.max_length": always,
            "seed": always,
        },
        data="preferences",
        trains=True,
        weighs=True,
        labels=False,
        rewards=frozenset({"endpoints"}),
        makes_rewards=True,
        samples=SAMPLING["generator.samples"],
        writes=("adapter", "generations.jsonl", "scores.jsonl"),
        after_sweep="alignlab.jobs.front",
    )
    beta: float = MISSING
    adapters: dict[str, str] = MISSING
    extrapolate: bool = MISSING
    rank: int | None = MISSING

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")
        require(self.rank is None or self.rank > 0, "algorithm.rank", self.rank, "must be > 0, or null for the sum")
        for name, folder in self.adapters.items():
            require(bool(folder.strip()), f"algorithm.adapters.{name}", folder, "must name the folder of an adapter")
