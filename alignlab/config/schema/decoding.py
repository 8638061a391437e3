"""Policies that are made while decoding, of what was trained or scored before."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import (
    MEASURED,
    MODEL,
    OWN_PAIRS,
    PREFERENCES,
    TRAINING,
    both,
    either,
    gold_rewards,
    if_kind,
    makes,
    off_toy,
    on_toy,
    others,
    scored,
    when,
)
from alignlab.config.names import QUALITY_FILES
from alignlab.config.schema.algorithm import AlgorithmConfig, EvaluateConfig
from alignlab.config.uses import Uses, always
from alignlab.errors import require, require_one_of

SAMPLED = ("generations.jsonl", "scores.jsonl", *QUALITY_FILES)

_SAMPLES = either(scored, gold_rewards)


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
        samples=_SAMPLES,
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


_SEQUENCE = if_kind("algorithm.level", "sequence")


@dataclass
class LogitMixConfig(AlgorithmConfig):
    """Mix the policies behind the objectives' implicit rewards, token by token or response by response."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **PREFERENCES,
            **MODEL,
            **OWN_PAIRS,
            **when(makes, TRAINING),
            **MEASURED,
            "dataset.exact_samples": both(gold_rewards, on_toy),
            "scorers": always,
            "generator": _SAMPLES,
            "generator.samples": _SAMPLES,
            "generator.prompts": both(scored, off_toy),
            "algorithm": always,
            "algorithm.samples": _SEQUENCE,
            "algorithm.min_ess": _SEQUENCE,
            "w": always,
            "weights": always,
            **dict.fromkeys(("reward", "algorithm.rewards"), others),
            "trainer.max_length": always,
            "trainer.per_device_eval_batch_size": always,
            "seed": always,
        },
        data="preferences",
        weighs=True,
        labels=False,
        rewards=frozenset({"others", "policies"}),
        makes_rewards=True,
        samples=_SAMPLES,
        writes=("rewards.json", *SAMPLED),
        after_sweep="alignlab.jobs.front",
    )
    level: str = MISSING
    beta: float = MISSING
    rewards: dict[str, Any] = MISSING
    """As ModpoConfig's."""
    samples: int | None = MISSING
    min_ess: float = MISSING

    def __post_init__(self) -> None:
        require_one_of("algorithm.level", self.level, ("token", "sequence"))
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")
        rule = "must be > 0, or null for generator.samples"
        require(self.samples is None or self.samples > 0, "algorithm.samples", self.samples, rule)
        require(1 <= self.min_ess < math.inf, "algorithm.min_ess", self.min_ess, "must be a finite number >= 1")
