"""Soups: weighted sums of what adapters add to the weights."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import (
    BALANCE,
    MODEL,
    OWN_PAIRS,
    PREFERENCES,
    SAMPLING,
    SCORING,
    TRAINING,
    extrapolates,
    trains_rewards,
    when,
)
from alignlab.config.schema.algorithm import SAMPLED, AlgorithmConfig
from alignlab.config.schema.ranges import within
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
            **when(trains_rewards, TRAINING),
            **SAMPLING,
            **SCORING,
            "algorithm": always,
            "algorithm.extrapolate": extrapolates,
            **BALANCE,
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
        writes=("adapter", *SAMPLED),
        after_sweep="alignlab.jobs.front",
    )
    beta: float = within("(0, inf)", "1/nat")
    adapters: dict[str, str] = MISSING
    extrapolate: bool = MISSING
    rank: int | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.rank is None or self.rank > 0, "algorithm.rank", self.rank, "must be > 0, or null for the sum")
        for name, folder in self.adapters.items():
            require(bool(folder.strip()), f"algorithm.adapters.{name}", folder, "must name the folder of an adapter")
