"""Pairs of a policy's own answers: sampled, scored, selected, labelled."""

from dataclasses import dataclass
from typing import ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import (
    BALANCE,
    FILES,
    MODEL,
    SCRATCH,
    TRAINING,
    UNMEASURED,
    if_kind,
    off_toy,
    trains_scorers,
    when,
)
from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.schema.selection import PairSelection
from alignlab.config.uses import Uses, always, not_here
from alignlab.errors import require

_WEIGHTED = if_kind("algorithm.select", "weighted")


@dataclass
class PairsConfig(PairSelection, AlgorithmConfig):
    """Sample answers, score them by objective, and make pairs of them."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **MODEL,
            **SCRATCH,
            **when(trains_scorers, TRAINING),
            "dataset": always,
            **FILES,
            "dataset.pairs": not_here,
            "dataset.exact_samples": off_toy,
            "dataset.keep": not_here,
            **UNMEASURED,
            "generator": always,
            "generator.prompts": not_here,
            "algorithm": always,
            "algorithm.temperature": if_kind("algorithm.labels", "bradley_terry"),
            "scorers": always,
            **when(_WEIGHTED, BALANCE),
            "trainer.max_length": always,
            "trainer.per_device_eval_batch_size": always,
            "seed": always,
        },
        data="prompts",
        samples=always,
        writes=("rows", "scores", "members.json", "README.md"),
    )
    sources: list[str] = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check("algorithm")
        require(len(set(self.sources)) == len(self.sources), "algorithm.sources", self.sources, "names one twice")
