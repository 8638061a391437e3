"""Algorithms: one type for each set of keys."""

import math
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import MISSING

from alignlab.config.errors import ConfigError, nearest, require, require_one_of
from alignlab.config.names import LOSSES, REFUSED_LOSSES, SMOOTHED_LOSSES
from alignlab.config.schema.reward import RewardConfig

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
    """DPO and its kin: `dpo`, `reward_model`."""

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
        if self.loss_type in SMOOTHED_LOSSES:
            require(
                self.label_smoothing > 0,
                "algorithm.label_smoothing",
                self.label_smoothing,
                f"must be > 0 with algorithm.loss_type={self.loss_type}",
            )


@dataclass
class ModpoConfig(PreferenceConfig):
    """DPO against a reference that the other objectives' rewards tilt."""

    rewards: dict[str, Any] = MISSING
    """Objective -> RewardConfig. Untyped for Hydra, which cannot add a typed entry from the command line."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {item.name for item in fields(RewardConfig)}
        for objective, given in self.rewards.items():
            settings = given if isinstance(given, dict) else {"": given}
            for name in settings:
                require(name in known, f"algorithm.rewards.{objective}.{name}", settings[name], nearest(name, known))
            try:
                self.rewards[objective] = RewardConfig(**settings)
            except ConfigError as error:
                raise ConfigError(str(error).replace("reward.", f"algorithm.rewards.{objective}.", 1)) from None


@dataclass
class EvaluateConfig(AlgorithmConfig):
    """Sample, score and compare with the reference, without training."""

    adapter: str | None = MISSING
    beta: float = MISSING

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")


@dataclass
class FrontConfig(AlgorithmConfig):
    """Collect runs into a front."""

    runs: list[str] = MISSING

    @property
    def only_collects(self) -> bool:
        """A front is of the runs that there are now."""
        return True
