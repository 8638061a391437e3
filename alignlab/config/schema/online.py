"""Online training: the policy learns from rewards of what it says while it is trained."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import (
    MODEL,
    ON_ONE_PROCESS,
    PREFERENCES,
    SAMPLING,
    SCORING,
    TRAINING,
    either,
    gold_rewards,
    makes,
    scored,
    unless_set,
)
from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.uses import Uses, always, not_here
from alignlab.errors import require

_OF_PAIRS = either(makes, not_here)
"""Keys that only the training of a reward on pairs reads."""


@dataclass
class GrpoConfig(AlgorithmConfig):
    """Policy gradients on the weighted rewards of the policy's own samples."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **PREFERENCES,
            **MODEL,
            **TRAINING,
            **SAMPLING,
            **SCORING,
            "generator": always,
            **dict.fromkeys(
                ("generator.temperature", "generator.top_p", "generator.samples"), either(scored, gold_rewards)
            ),
            "algorithm": always,
            "algorithm.reward_beta": makes,
            "reward": always,
            "reward.normalise": unless_set("algorithm.normalise", "=true"),
            **{key: either(makes, why) for key, why in ON_ONE_PROCESS.items()},
            **dict.fromkeys(("trainer.sets_per_step", "trainer.max_tokens_per_forward"), _OF_PAIRS),
            "w": always,
            "weights": always,
        },
        data="preferences",
        trains=True,
        weighs=True,
        labels=False,
        rewards=frozenset({"others"}),
        makes_rewards=True,
        samples=always,
        writes=("adapter", "rewards.json", "generations.jsonl", "scores.jsonl"),
        after_sweep="alignlab.jobs.front",
    )
    beta: float = MISSING
    generations: int = MISSING
    normalise: bool = MISSING
    reward_beta: float = MISSING
    rewards: dict[str, Any] = MISSING
    """As ModpoConfig's."""
    check_rewards: bool = MISSING

    def __post_init__(self) -> None:
        rule = "must be a finite number > 0"
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, f"{rule}, in 1/nat")
        require(0 < self.reward_beta < math.inf, "algorithm.reward_beta", self.reward_beta, f"{rule}, in 1/nat")
        rule = "must be >= 2: a response is compared with the others to its prompt"
        require(self.generations >= 2, "algorithm.generations", self.generations, rule)
