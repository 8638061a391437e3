"""Online training: the policy learns from rewards of what it says while it is trained."""

from dataclasses import dataclass, replace
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import BALANCE, OF_PAIRS, ON_ONE_PROCESS, either, gold_rewards, scored, trains_rewards
from alignlab.config.schema.algorithm import REWARDED_POLICY, RewardedConfig
from alignlab.config.uses import Uses, always, not_here
from alignlab.errors import require

_MEASURED = either(scored, gold_rewards)


@dataclass
class GrpoConfig(RewardedConfig):
    """Policy gradients on the weighted rewards of the policy's own samples."""

    uses: ClassVar[Uses] = replace(
        REWARDED_POLICY,
        reads={
            **REWARDED_POLICY.reads,
            **BALANCE,
            "generator": always,
            **dict.fromkeys(("generator.temperature", "generator.top_p", "generator.samples"), _MEASURED),
            **{key: either(trains_rewards, why) for key, why in ON_ONE_PROCESS.items()},
            **dict.fromkeys(OF_PAIRS, either(trains_rewards, not_here)),
        },
        weighs=True,
        samples=always,
    )
    generations: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "must be >= 2: a response is compared with the others to its prompt"
        require(self.generations >= 2, "algorithm.generations", self.generations, rule)
