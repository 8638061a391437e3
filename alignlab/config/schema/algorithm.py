"""What every algorithm has, and what those share that train a policy."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import (
    MODEL,
    PREFERENCES,
    SAMPLING,
    SCORING,
    TRAINING,
    gold_rewards,
    makes_implicit,
    unless_set,
)
from alignlab.config.names import QUALITY_FILES
from alignlab.config.schema.ranges import check_ranges, within
from alignlab.config.uses import Uses, always

SAMPLED = ("generations.jsonl", "scores.jsonl", *QUALITY_FILES)
"""What sampling and scoring a policy writes."""

TRAINED_POLICY = Uses(
    reads={**PREFERENCES, **MODEL, **TRAINING, **SAMPLING, **SCORING, "algorithm": always},
    data="preferences",
    trains=True,
    samples=gold_rewards,
    writes=("adapter", *SAMPLED),
    after_sweep="alignlab.jobs.front",
)
"""Of an adapter that is trained on preferences and measured on held-out prompts; a sweep of it is a front."""

REWARDED_POLICY = replace(
    TRAINED_POLICY,
    reads={
        **TRAINED_POLICY.reads,
        "algorithm.reward_beta": makes_implicit,
        "reward": always,
        "reward.normalise": unless_set("algorithm.normalise", "=true"),
    },
    labels=False,
    rewards=frozenset({"others"}),
    makes_rewards=True,
    writes=("adapter", "rewards.json", "members.json", *SAMPLED),
)
"""The same, trained on the rewards of all objectives."""


@dataclass
class AlgorithmConfig:
    """What every algorithm has."""

    uses: ClassVar[Uses]
    """What the algorithm reads, writes and ends in; everything that depends on the algorithm's kind follows it."""
    name: str = MISSING

    def __post_init__(self) -> None:
        check_ranges("algorithm", self)


@dataclass
class RewardedConfig(AlgorithmConfig):
    """What algorithms have whose policy is trained on the rewards of all objectives."""

    beta: float = within("(0, inf)", "1/nat")
    normalise: bool = MISSING
    reward_beta: float = within("(0, inf)", "1/nat")
    rewards: dict[str, Any] = MISSING
    """Objective -> RewardConfig. Untyped for Hydra, which cannot add a typed entry from the command line; RunConfig
    fills it up and types it."""
    check_rewards: bool = MISSING
