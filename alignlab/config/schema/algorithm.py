"""Algorithms: one type for each set of keys."""

import math
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from alignlab.config.names import LOSSES, PER_TOKEN_LOSSES, REFUSED_LOSSES, SMOOTHED_LOSSES, TILTABLE_LOSSES
from alignlab.config.schema.reward import DTYPES
from alignlab.errors import ConfigError, require, require_one_of

MIN_MODPO_WEIGHT = 0.05
"""Smallest trained weight: the loss multiplies log-ratios by 1/w, and below this few pairs still carry gradient."""


@dataclass
class AlgorithmConfig:
    """What every algorithm has."""

    name: str = MISSING

    @property
    def only_collects(self) -> bool:
        """Whether it looks at other runs, whatever they are by now, so that it is never done before."""
        return False


@dataclass
class PreferenceConfig(AlgorithmConfig):
    """DPO and its kin."""

    objective: str | None = MISSING
    beta: float = MISSING
    loss_type: str = MISSING
    label_smoothing: float = MISSING

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")
        if self.loss_type in REFUSED_LOSSES:
            raise ConfigError(f"algorithm.loss_type={self.loss_type}: refused, it {REFUSED_LOSSES[self.loss_type]}")
        require_one_of("algorithm.loss_type", self.loss_type, LOSSES)
        require(
            0 <= self.label_smoothing < 0.5, "algorithm.label_smoothing", self.label_smoothing, "must be in [0, 0.5)"
        )
        smoothed = self.loss_type in SMOOTHED_LOSSES
        rule = f"must be 0 with algorithm.loss_type={self.loss_type}; algorithm.loss_type=robust has a use for it"
        if smoothed:
            rule = f"must be > 0 with algorithm.loss_type={self.loss_type}"
        require(smoothed == (self.label_smoothing > 0), "algorithm.label_smoothing", self.label_smoothing, rule)


@dataclass
class RewardModelConfig(PreferenceConfig):
    """A reward for one objective: implicit (DPO), or a sequence classifier, which has no use for beta and loss."""

    kind: str = MISSING
    full: bool = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("algorithm.kind", self.kind, ("implicit", "classifier"))
        rule = "trains all weights of a classifier; with algorithm.kind=implicit the adapter is the reward"
        require(not self.full or self.kind == "classifier", "algorithm.full", "true", rule)


@dataclass
class DpoConfig(PreferenceConfig):
    """DPO, whose loss may also pull at the chosen responses themselves."""

    sft_weight: float = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sft_weight >= 0, "algorithm.sft_weight", self.sft_weight, "must be >= 0")


@dataclass
class ModpoConfig(DpoConfig):
    """DPO against a reference that the other objectives' rewards tilt."""

    rewards: dict[str, Any] = MISSING
    """Objective -> RewardConfig. Untyped for Hydra, which cannot add a typed entry from the command line; RunConfig
    fills it up and types it."""
    check_rewards: bool = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "divides each response's reward by its length; choose algorithm=dpo, or one of "
        fits = self.loss_type not in PER_TOKEN_LOSSES
        require(fits, "algorithm.loss_type", self.loss_type, rule + ", ".join(TILTABLE_LOSSES))


@dataclass
class AuditConfig(AlgorithmConfig):
    """Score a preference set by rewards and a policy, without training."""

    objective: str | None = MISSING
    beta: float = MISSING
    adapter: str | None = MISSING
    rewards: dict[str, Any] = MISSING
    """As ModpoConfig's."""
    max_length: int | None = MISSING
    mislabelled: int = MISSING

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")
        limit = self.max_length
        require(limit is None or limit > 1, "algorithm.max_length", limit, "must be > 1 token, or null")
        require(self.mislabelled >= 0, "algorithm.mislabelled", self.mislabelled, "must be >= 0 pairs")


BALANCED = ModpoConfig | AuditConfig
"""The algorithms that weigh several objectives by w."""


@dataclass
class SftConfig(AlgorithmConfig):
    """Supervised fine-tuning on a preference set's responses."""

    objective: str | None = MISSING
    responses: str = MISSING

    def __post_init__(self) -> None:
        require_one_of("algorithm.responses", self.responses, ("chosen", "both"))


@dataclass
class MergeConfig(AlgorithmConfig):
    """Add an adapter into its base model's weights."""

    adapter: str | None = MISSING
    dtype: str | None = MISSING

    def __post_init__(self) -> None:
        require(bool(self.adapter), "algorithm.adapter", "null", "must name the folder of the adapter to merge")
        if self.dtype is not None:
            require_one_of("algorithm.dtype", self.dtype, DTYPES)


@dataclass
class EvaluateConfig(AlgorithmConfig):
    """Sample, score and compare with the reference, without training."""

    adapter: str | None = MISSING
    beta: float = MISSING
    rewards: dict[str, Any] = MISSING
    """Objective -> RewardConfig, as MODPO's."""
    prompts: int = MISSING

    def __post_init__(self) -> None:
        require(self.prompts > 0, "algorithm.prompts", self.prompts, "must be > 0")
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")


@dataclass
class FrontConfig(AlgorithmConfig):
    """Collect runs into a front."""

    runs: list[str] = MISSING

    @property
    def only_collects(self) -> bool:
        """A front is of the runs that there are now."""
        return True
