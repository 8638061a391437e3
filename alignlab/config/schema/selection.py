"""How pairs of a policy's own answers are chosen and labelled."""

import math
from dataclasses import dataclass

from omegaconf import MISSING

from alignlab.errors import require, require_one_of

SELECTIONS = ("extremes", "all", "random", "consistent", "pareto", "weighted")
LABELS = ("best", "bradley_terry")


@dataclass
class PairSelection:
    """Which answers of a prompt are compared, and what the better one is."""

    select: str = MISSING
    labels: str = MISSING
    temperature: float = MISSING
    min_margin: float = MISSING
    near_duplicates: float | None = MISSING

    def check(self, key: str) -> None:
        """Refuse settings out of range; `key` is what they stand under."""
        require_one_of(f"{key}.select", self.select, SELECTIONS)
        require_one_of(f"{key}.labels", self.labels, LABELS)
        good = 0 < self.temperature < math.inf
        require(good, f"{key}.temperature", self.temperature, "must be a finite number > 0, in the scorers' units")
        require(self.min_margin >= 0, f"{key}.min_margin", self.min_margin, "must be >= 0, in the scorers' units")
        alike = self.near_duplicates
        good = alike is None or 0 < alike <= 1
        require(good, f"{key}.near_duplicates", alike, "must be in (0, 1], or null to keep near copies")


@dataclass
class OwnPairs(PairSelection):
    """Pairs that are made before a run trains on prompts alone."""

    samples: int = MISSING

    def __post_init__(self) -> None:
        self.check("dataset.pairs")
        require(self.samples > 1, "dataset.pairs.samples", self.samples, "must be > 1, so that answers can be compared")
