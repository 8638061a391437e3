"""Course correction: how a harmful beginning is put into the model's mouth."""

from dataclasses import dataclass

from omegaconf import MISSING

from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.errors import require, require_one_of

PROFILES = ("strict", "words", "paper")


@dataclass
class CourseCorrectionConfig(AlgorithmConfig):
    """Prefill, sample, judge: Corr@k."""

    adapter: str | None = MISSING
    profile: str = MISSING
    k: list[int] = MISSING
    turn: str = MISSING
    control: str | None = MISSING
    compare: list[str] = MISSING
    labels: str | None = MISSING

    @property
    def only_collects(self) -> bool:
        """A comparison is of what the runs hold now."""
        return bool(self.compare)

    def __post_init__(self) -> None:
        require_one_of("algorithm.profile", self.profile, PROFILES)
        require_one_of("algorithm.turn", self.turn, ("continue", "reinject_header"))
        require(bool(self.k), "algorithm.k", "[]", "must name at least one length")
        for k in self.k:
            require(k > 0, "algorithm.k", k, "must be > 0")
        require(sorted(set(self.k)) == self.k, "algorithm.k", self.k, "must rise, each length once")
        require(
            self.labels is None or len(self.compare) == 1,
            "algorithm.labels",
            self.labels,
            "judges the judge of one finished run; name it: algorithm.compare=[RUN_FOLDER]",
        )
