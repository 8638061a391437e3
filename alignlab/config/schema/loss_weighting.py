"""Losses on preference pairs alone, without any reward: several objectives' at once, or one's under safety labels."""

from dataclasses import dataclass, replace
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import BALANCE, LOSS, ON_ONE_PROCESS
from alignlab.config.schema.algorithm import TRAINED_POLICY, AlgorithmConfig
from alignlab.config.schema.preference import PreferenceLossConfig
from alignlab.config.schema.ranges import within
from alignlab.config.uses import Uses


@dataclass
class LossWeightedConfig(PreferenceLossConfig):
    """The weighted sum of the objectives' DPO losses, each on its own pairs."""

    uses: ClassVar[Uses] = replace(
        TRAINED_POLICY, reads={**TRAINED_POLICY.reads, **LOSS, **BALANCE}, weighs=True, labels=False
    )


@dataclass
class RacoConfig(LossWeightedConfig):
    """The same losses by conflict-averse descent, limited by w; every objective's gradient is taken on its own."""

    uses: ClassVar[Uses] = replace(LossWeightedConfig.uses, reads={**LossWeightedConfig.uses.reads, **ON_ONE_PROCESS})
    conflict: float = within("[0, 1)")


@dataclass
class SafeDpoConfig(AlgorithmConfig):
    """DPO on one objective's pairs, reordered by safety labels."""

    uses: ClassVar[Uses] = TRAINED_POLICY
    objective: str | None = MISSING
    beta: float = within("(0, inf)", "1/nat")
    offset: float = within("[0, inf)")
