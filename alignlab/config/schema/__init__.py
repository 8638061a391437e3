"""The typed configuration: every key, its type and its range, a file a group. Defaults live in conf/, never here."""

from alignlab.config.schema.algorithm import (
    MIN_MODPO_WEIGHT,
    AlgorithmConfig,
    EvaluateConfig,
    FrontConfig,
    ModpoConfig,
    PreferenceConfig,
    RewardModelConfig,
)
from alignlab.config.schema.dataset import DatasetConfig, FileConfig, ObjectiveConfig, ToyConfig
from alignlab.config.schema.generation import GeneratorConfig
from alignlab.config.schema.model import (
    ArchitectureConfig,
    FromScratchConfig,
    ModelConfig,
    PretrainedConfig,
    PretrainingConfig,
)
from alignlab.config.schema.reward import (
    REWARD_KINDS,
    BeaverConfig,
    ClassifierConfig,
    GoldConfig,
    HttpConfig,
    ImplicitConfig,
    LengthConfig,
    PythonConfig,
    RewardConfig,
    ScorerConfig,
)
from alignlab.config.schema.run import VARIANTS, PathsConfig, RunConfig, TrackerConfig
from alignlab.config.schema.training import HardwareConfig, PeftConfig, TrainerConfig, WeightsConfig

__all__ = [
    "MIN_MODPO_WEIGHT",
    "REWARD_KINDS",
    "VARIANTS",
    "AlgorithmConfig",
    "ArchitectureConfig",
    "BeaverConfig",
    "ClassifierConfig",
    "DatasetConfig",
    "EvaluateConfig",
    "FileConfig",
    "FromScratchConfig",
    "FrontConfig",
    "GeneratorConfig",
    "GoldConfig",
    "HardwareConfig",
    "HttpConfig",
    "ImplicitConfig",
    "LengthConfig",
    "ModelConfig",
    "ModpoConfig",
    "ObjectiveConfig",
    "PathsConfig",
    "PeftConfig",
    "PreferenceConfig",
    "PretrainedConfig",
    "PretrainingConfig",
    "PythonConfig",
    "RewardConfig",
    "RewardModelConfig",
    "RunConfig",
    "ScorerConfig",
    "ToyConfig",
    "TrackerConfig",
    "TrainerConfig",
    "WeightsConfig",
]
