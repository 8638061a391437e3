"""One adapter for every w, and the ordinary adapter that it is at one w."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import BALANCE, if_kind
from alignlab.config.names import CONDITIONED_LOSSES, REGRESSION_LOSSES
from alignlab.config.schema.algorithm import REWARDED_POLICY, AlgorithmConfig, RewardedConfig
from alignlab.config.schema.ranges import within
from alignlab.config.uses import Uses, always
from alignlab.errors import require, require_one_of


@dataclass
class ConditionedConfig(RewardedConfig):
    """Train an adapter that is linear in w, on MODPO's or REBEL's loss, with w drawn for each batch."""

    uses: ClassVar[Uses] = replace(
        REWARDED_POLICY,
        reads={**REWARDED_POLICY.reads, "algorithm.threshold": if_kind("algorithm.loss", "huber", "clipped")},
        writes=("adapter", "points", "points.json", "rewards.json", "members.json"),
        after_run=True,
    )
    loss: str = MISSING
    threshold: float = within("(0, inf)", "the rewards' unit")
    draws: int = within("[1, 1024]")
    concentration: float = within("(0, 1e3]")
    shared_rank: int = within("[0, 65536]")
    export_at: list[Any] = MISSING

    @property
    def ranks_by_labels(self) -> bool:
        """Whether the loss is MODPO's, which takes one objective's labels."""
        return self.loss not in REGRESSION_LOSSES

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("algorithm.loss", self.loss, CONDITIONED_LOSSES)
        rule = f"must be false with algorithm.loss={self.loss}, whose labels have a scale of their own"
        require(not self.normalise or not self.ranks_by_labels, "algorithm.normalise", "true", rule)
        once = len(set(map(str, self.export_at))) == len(self.export_at)
        require(once, "algorithm.export_at", self.export_at, "must name each w once")


@dataclass
class ExportConfig(AlgorithmConfig):
    """Write the ordinary LoRA that a conditioned adapter is at one w."""

    uses: ClassVar[Uses] = Uses(
        reads={"algorithm": always, **BALANCE, "paths": always, "force": always},
        weighs=True,
        labels=False,
        writes=("adapter",),
    )
    adapter: str | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.adapter), "algorithm.adapter", "null", "must name the folder of a conditioned adapter")
