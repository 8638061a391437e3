"""One run, whole: every group with its type, and what no group owns."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.schema.choose import ChooseConfig
from alignlab.config.schema.clean import CleanConfig
from alignlab.config.schema.conditioned import ConditionedConfig, ExportConfig
from alignlab.config.schema.course_correction import CourseCorrectionConfig
from alignlab.config.schema.dataset import DATASET_VARIANTS, DatasetConfig, ToyConfig
from alignlab.config.schema.decoding import BestOfNConfig, LogitMixConfig
from alignlab.config.schema.defaults import complete_rewards, complete_scorers
from alignlab.config.schema.generation import GeneratorConfig, LocalGeneratorConfig, ServerGeneratorConfig
from alignlab.config.schema.judge import JUDGE_KINDS, JudgeConfig
from alignlab.config.schema.loss_weighting import LossWeightedConfig, RacoConfig, SafeDpoConfig
from alignlab.config.schema.measuring import (
    AuditConfig,
    EvaluateConfig,
    FrontConfig,
    IndexConfig,
    MergeConfig,
    PreviewConfig,
)
from alignlab.config.schema.model import FromScratchConfig, ModelConfig, PretrainedConfig
from alignlab.config.schema.online import GrpoConfig
from alignlab.config.schema.pairs import PairsConfig
from alignlab.config.schema.preference import DpoConfig, ModpoConfig, RebelConfig, RewardModelConfig, SftConfig
from alignlab.config.schema.publish import PublishConfig
from alignlab.config.schema.reward import REWARD_KINDS, RewardConfig
from alignlab.config.schema.soup import SoupConfig
from alignlab.config.schema.synthesis import SynthesisConfig
from alignlab.config.schema.training import HardwareConfig, PeftConfig, TrainerConfig, WeightsConfig
from alignlab.errors import LONGEST_NAME, require, require_one_of, require_seed

LONGEST_TAG = 64
"""Of wandb."""


@dataclass
class TrackerConfig:
    """Where training metrics go beside the run folder."""

    kind: str = MISSING
    project: str = MISSING
    entity: str | None = MISSING
    tags: list[str] = MISSING
    adapter_mb: float = MISSING

    def __post_init__(self) -> None:
        require_one_of("tracker.kind", self.kind, ("auto", "local", "wandb", "wandb_offline", "trackio", "tensorboard"))
        good = 0 < len(self.project) <= LONGEST_NAME and not set(self.project) & set("/\\#?%:") and self.project.strip()
        require(bool(good), "tracker.project", repr(self.project), "must be a name without any of / \\ # ? % :")
        if self.entity is not None:
            named = bool(re.fullmatch(r"[\w-]+", self.entity)) and len(self.entity) <= LONGEST_NAME
            require(named, "tracker.entity", repr(self.entity), "must be a name of letters, digits, - and _")
        sized = math.isfinite(self.adapter_mb) and self.adapter_mb >= 0
        require(sized, "tracker.adapter_mb", self.adapter_mb, "must be a finite number >= 0")
        long = next((tag for tag in self.tags if not 0 < len(tag.strip()) <= LONGEST_TAG), None)
        require(long is None, "tracker.tags", repr(self.tags), f"must hold texts of 1 to {LONGEST_TAG} characters")


@dataclass
class PathsConfig:
    """Where files go. No part of a run's identity."""

    runs: str = MISSING
    cache: str = MISSING

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            require(bool(value.strip()), f"paths.{item.name}", value, "must name a folder")


@dataclass
class RunConfig:
    """One run, whole."""

    w: Any = MISSING
    seed: int = MISSING
    force: bool = MISSING
    model: ModelConfig = MISSING
    dataset: DatasetConfig = MISSING
    algorithm: AlgorithmConfig = MISSING
    weights: WeightsConfig = MISSING
    peft: PeftConfig = MISSING
    reward: RewardConfig = MISSING
    scorers: dict[str, Any] = MISSING
    """Objective -> RewardConfig, untyped for Hydra as algorithm.rewards is."""
    target: dict[str, float] = MISSING
    """Objective -> the mean score that a policy must at least reach."""
    trainer: TrainerConfig = MISSING
    generator: GeneratorConfig = MISSING
    judge: JudgeConfig = MISSING
    hardware: HardwareConfig = MISSING
    tracker: TrackerConfig = MISSING
    paths: PathsConfig = MISSING

    def __post_init__(self) -> None:
        require_seed("seed", self.seed)
        if isinstance(self.dataset, ToyConfig):
            require_seed("dataset.seed", self.dataset.seed)
        require_one_of("algorithm.name", self.algorithm.name, VARIANTS["algorithm"])
        kind = VARIANTS["algorithm"][self.algorithm.name]
        require(type(self.algorithm) is kind, "algorithm.name", self.algorithm.name, "choose it by algorithm=NAME")
        require_one_of("reward.kind", self.reward.kind, REWARD_KINDS)
        own = type(self.reward) is REWARD_KINDS[self.reward.kind]
        require(own, "reward.kind", self.reward.kind, "choose it by reward=NAME")
        if hasattr(self.algorithm, "rewards"):
            self.algorithm.rewards = complete_rewards(self.algorithm.rewards, self.reward)
        self.scorers = complete_scorers(self.scorers)
        for name, value in self.target.items():
            require(math.isfinite(value), f"target.{name}", value, "must be a finite number, in the unit of its scorer")
        for key, value in _numbers(self, ""):
            require(math.isfinite(value), key, value, "must be a finite number")


def _numbers(node: Any, prefix: str) -> Iterator[tuple[str, float]]:
    """Every float below a config, with its key; w has rules of its own."""
    for item in fields(node):
        value = getattr(node, item.name)
        if is_dataclass(value):
            yield from _numbers(value, f"{prefix}{item.name}.")
        elif isinstance(value, float) and item.name != "w":
            yield f"{prefix}{item.name}", value


VARIANTS: dict[str, dict[str, type[Any]]] = {
    "model": {"from_scratch": FromScratchConfig, "pretrained": PretrainedConfig},
    "dataset": {**DATASET_VARIANTS},
    "algorithm": {
        "sft": SftConfig,
        "reward_model": RewardModelConfig,
        "dpo": DpoConfig,
        "modpo": ModpoConfig,
        "rebel": RebelConfig,
        "grpo": GrpoConfig,
        "best_of_n": BestOfNConfig,
        "logit_mix": LogitMixConfig,
        "soup": SoupConfig,
        "modpo_conditioned": ConditionedConfig,
        "export": ExportConfig,
        "dpo_lw": LossWeightedConfig,
        "raco": RacoConfig,
        "safedpo": SafeDpoConfig,
        "audit": AuditConfig,
        "merge": MergeConfig,
        "evaluate": EvaluateConfig,
        "front": FrontConfig,
        "choose": ChooseConfig,
        "preview": PreviewConfig,
        "publish": PublishConfig,
        "index": IndexConfig,
        "clean": CleanConfig,
        "course_correction": CourseCorrectionConfig,
        "synthesis": SynthesisConfig,
        "pairs": PairsConfig,
    },
    "reward": REWARD_KINDS,
    "generator": {"transformers": LocalGeneratorConfig, "server": ServerGeneratorConfig},
    "judge": {**JUDGE_KINDS},
}
"""Groups whose choices differ in their keys: group -> schema name -> type."""
