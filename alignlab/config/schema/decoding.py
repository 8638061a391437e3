"""Policies that are made while decoding, of what was trained or scored before."""

from dataclasses import dataclass
from typing import Any, ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import (
    BALANCE,
    MEASURED,
    MODEL,
    OWN_PAIRS,
    PREFERENCES,
    TRAINING,
    UNMEASURED,
    both,
    either,
    gold_rewards,
    if_kind,
    off_toy,
    on_toy,
    others,
    scored,
    trains_rewards,
    when,
)
from alignlab.config.schema.algorithm import SAMPLED, AlgorithmConfig
from alignlab.config.schema.measuring import EvaluateConfig
from alignlab.config.schema.ranges import within
from alignlab.config.uses import Uses, always
from alignlab.errors import require, require_one_of

_SAMPLES = either(scored, gold_rewards)


@dataclass
class BestOfNConfig(AlgorithmConfig):
    """Choose among n samples of the reference by their weighted rewards."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **EvaluateConfig.uses.reads,
            **UNMEASURED,
            "algorithm.beta": both(gold_rewards, on_toy),
            **BALANCE,
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
    beta: float = within("(0, inf)", "1/nat")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.n >= 1, "algorithm.n", self.n, "must be >= 1")
        rule = f"must be at least algorithm.n={self.n}, or null for generator.samples"
        require(self.samples is None or self.samples >= self.n, "algorithm.samples", self.samples, rule)


_SEQUENCE = if_kind("algorithm.level", "sequence")


@dataclass
class LogitMixConfig(AlgorithmConfig):
    """Mix the policies behind the objectives' implicit rewards, token by token or response by response."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **PREFERENCES,
            **MODEL,
            **OWN_PAIRS,
            **when(trains_rewards, TRAINING),
            "dataset.exact_samples": both(gold_rewards, on_toy),
            "scorers": always,
            **dict.fromkeys(MEASURED, both(scored, if_kind("algorithm.level", "token"))),
            "generator": _SAMPLES,
            "generator.samples": _SAMPLES,
            "generator.prompts": both(scored, off_toy),
            "algorithm": always,
            "algorithm.samples": _SEQUENCE,
            "algorithm.min_ess": _SEQUENCE,
            **BALANCE,
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
        writes=("rewards.json", "members.json", *SAMPLED),
        after_sweep="alignlab.jobs.front",
    )
    level: str = MISSING
    beta: float = within("(0, inf)", "1/nat")
    rewards: dict[str, Any] = MISSING
    """As RewardedConfig's."""
    samples: int | None = MISSING
    min_ess: float = within("[1, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("algorithm.level", self.level, ("token", "sequence"))
        rule = "must be > 0, or null for generator.samples"
        require(self.samples is None or self.samples > 0, "algorithm.samples", self.samples, rule)
