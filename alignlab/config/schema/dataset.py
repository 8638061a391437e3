"""Data sets: where preferences come from, and which objectives rank them."""

import math
from dataclasses import dataclass

from omegaconf import MISSING

from alignlab.config.errors import nearest, require, require_name, require_one_of


@dataclass
class ObjectiveConfig:
    """One thing to be good at: which column ranks the responses by it; null where only a reward does."""

    label: str | None = MISSING
    gold: str | None = None


@dataclass
class DatasetConfig:
    """What every preference set has."""

    kind: str = MISSING
    name: str = MISSING
    objectives: dict[str, ObjectiveConfig] = MISSING
    split: str | None = MISSING
    test_share: float = MISSING
    max_rows: int | None = MISSING
    beta: float = MISSING

    def __post_init__(self) -> None:
        require_name("dataset.name", self.name)
        require(bool(self.objectives), "dataset.objectives", "{}", "must name at least one objective")
        require(0 < self.beta < math.inf, "dataset.beta", self.beta, "must be a finite number > 0, in 1/nat")
        splits = ("train", "test")
        require(
            self.split is None or self.split in splits,
            "dataset.split",
            self.split,
            f"{nearest(str(self.split), splits)}, or null for all rows",
        )
        require(0 < self.test_share < 1, "dataset.test_share", self.test_share, "must be between 0 and 1")
        require(self.max_rows is None or self.max_rows > 0, "dataset.max_rows", self.max_rows, "must be > 0 or null")


@dataclass
class ToyConfig(DatasetConfig):
    """The embedded world: pairs are sampled from the reference and labelled by known rewards."""

    pairs: int = MISSING
    seed: int = MISSING
    exact_samples: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("dataset.kind", self.kind, ("toy",))
        require(self.pairs > 0, "dataset.pairs", self.pairs, "must be > 0")
        require(self.exact_samples >= 100, "dataset.exact_samples", self.exact_samples, "must be >= 100")


@dataclass
class FileConfig(DatasetConfig):
    """A preference set from a file, a folder or the hub."""

    path: str | None = MISSING
    hub: str | None = MISSING
    revision: str | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind != "toy", "dataset.kind", self.kind, "is the embedded world, which has no file")
        require(bool(self.path or self.hub), "dataset.path", "null", "must name a file, or dataset.hub a hub dataset")
