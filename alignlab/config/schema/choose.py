"""Choose a policy of a front by targets."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.schema.ranges import within
from alignlab.config.uses import Uses, always


@dataclass
class ChooseConfig(AlgorithmConfig):
    """Pick the adapter that meets the targets with the best other objective, and write it."""

    uses: ClassVar[Uses] = Uses(
        reads={
            "algorithm": always,
            "target": always,
            "model.name": always,
            "dataset.name": always,
            "paths": always,
            "force": always,
        },
        collects=always,
        writes=("adapter", "choice.json"),
    )
    runs: list[str] = MISSING
    min_chance: float = within("(0, 1)")
