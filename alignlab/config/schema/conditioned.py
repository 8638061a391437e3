"""One adapter for every w, and the ordinary adapter that it is at one w."""

from dataclasses import dataclass
from typing import Any, ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import MODEL, PREFERENCES, SAMPLING, SCORING, TRAINING, if_kind, makes, unless_set
from alignlab.config.names import CONDITIONED_LOSSES, REGRESSION_LOSSES
from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.schema.ranges import check_ranges, within
from alignlab.config.uses import Uses, always
from alignlab.errors import require, require_one_of


@dataclass
class ConditionedConfig(AlgorithmConfig):
    """Train an adapter that is linear in w, on MODPO's or REBEL's loss, with w drawn for each batch."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **PREFERENCES,
            **MODEL,
            **TRAINING,
            **SAMPLING,
            **SCORING,
            "algorithm": always,
            "algorithm.threshold": if_kind("algorithm.loss", "huber", "clipped"),
            "algorithm.reward_beta": makes,
            "reward": always,
            "reward.normalise": unless_set("algorithm.normalise", "=true"),
        },
        data="preferences",
        trains=True,
        labels=False,
        rewards=frozenset({"others"}),
        makes_rewards=True,
        samples=SAMPLING["generator.samples"],
        writes=("adapter", "points", "points.json", "rewards.json"),
        after_sweep="alignlab.jobs.front",
        after_run=True,
    )
    loss: str = MISSING
    beta: float = within("(0, inf)")
    threshold: float = within("(0, inf)")
    normalise: bool = MISSING
    reward_beta: float = within("(0, inf)")
    draws: int = within("[1, 1024]")
    concentration: float = within("(0, 1e3]")
    shared_rank: int = within("[0, 65536]")
    export_at: list[Any] = MISSING
    rewards: dict[str, Any] = MISSING
    """As ModpoConfig's."""
    check_rewards: bool = MISSING

    @property
    def ranks_by_labels(self) -> bool:
        """Whether the loss is MODPO's, which takes one objective's labels."""
        return self.loss not in REGRESSION_LOSSES

    def __post_init__(self) -> None:
        check_ranges("algorithm", self)
        require_one_of("algorithm.loss", self.loss, CONDITIONED_LOSSES)
        rule = f"must be false with algorithm.loss={self.loss}, whose labels have a scale of their own"
        require(not self.normalise or not self.ranks_by_labels, "algorithm.normalise", "true", rule)
        require(len(set(map(str, self.export_at))) == len(self.export_at), "algorithm.export_at", self.export_at, _ONCE)


_ONCE = "must name each w once"


@dataclass
class ExportConfig(AlgorithmConfig):
    """Write the ordinary LoRA that a conditioned adapter is at one w."""

    uses: ClassVar[Uses] = Uses(
        reads={"algorithm": always, "w": always, "weights": always, "paths": always, "force": always},
        weighs=True,
        labels=False,
        writes=("adapter",),
    )
    adapter: str | None = MISSING

    def __post_init__(self) -> None:
        require(bool(self.adapter), "algorithm.adapter", "null", "must name the folder of a conditioned adapter")
